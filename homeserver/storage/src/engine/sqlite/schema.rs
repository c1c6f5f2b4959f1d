//! The statements: one table of keys and values for each table of the catalogue.

use std::time::Duration;

use rusqlite::{Connection, config::DbConfig};

use crate::{Table, tables::CATALOGUE};

/// Marks the file as Matron's: "MATR".
pub(super) const APPLICATION_ID: i32 = 0x4D41_5452;
/// How long a connection waits for another that holds a lock.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How many statements a reader keeps: those of the tables that are read all the time.
pub(super) const READ_STATEMENTS: usize = 128;
/// How many statements the writer keeps: all of them.
pub(super) const WRITE_STATEMENTS: usize = 512;

/// The table of the store's own numbers.
pub(super) const CREATE_META: &str =
    "CREATE TABLE IF NOT EXISTS matron_meta(name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) WITHOUT ROWID";
pub(super) const READ_POSITION: &str = "SELECT value FROM matron_meta WHERE name = 'position'";
pub(super) const WRITE_POSITION: &str = "INSERT INTO matron_meta(name, value) VALUES ('position', ?1) ON CONFLICT(name) DO UPDATE SET value = excluded.value";

/// A prepared statement stays as it is. Otherwise SQLite would look at what is bound to a limit and prepare the statement
/// anew each time that another value is; our statements have one plan, whatever is bound.
pub(super) fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// Whether values are large enough that a tree of keys beside a tree of rows takes less disk than one tree of both.
fn has_large_values(table: Table) -> bool {
    matches!(
        table,
        Table::EventPdu
            | Table::EventContent
            | Table::EventHeld
            | Table::BackupSession
            | Table::ToDeviceInbox
            | Table::RoomStateGroup
            | Table::RoomStripped
            | Table::DeviceListRemote
            | Table::InboxTxn
            | Table::ServerKey
            | Table::PolicyRegister
            | Table::AuditEntry
    )
}

/// The statements of one table.
#[derive(Debug)]
pub(super) struct TableStatements {
    pub(super) create: String,
    pub(super) get: String,
    pub(super) put: String,
    pub(super) delete: String,
    pub(super) delete_to: String,
    pub(super) delete_from: String,
    pub(super) scan_up: String,
    pub(super) scan_up_to: String,
    pub(super) scan_down: String,
    pub(super) scan_down_to: String,
}

/// The statements of all tables.
#[derive(Debug)]
pub(super) struct Statements(Vec<TableStatements>);

impl Statements {
    pub(super) fn new() -> Self {
        Self(CATALOGUE.iter().map(|info| TableStatements::new(info.table)).collect())
    }

    pub(super) fn of(&self, table: Table) -> Option<&TableStatements> {
        self.0.get(table.index())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &TableStatements> {
        self.0.iter()
    }
}

impl TableStatements {
    fn new(table: Table) -> Self {
        let name = table.name();
        let shape = if has_large_values(table) { "" } else { " WITHOUT ROWID" };
        Self {
            create: format!("CREATE TABLE IF NOT EXISTS {name}(k BLOB PRIMARY KEY NOT NULL, v BLOB NOT NULL){shape}"),
            get: format!("SELECT v FROM {name} WHERE k = ?1"),
            put: format!("INSERT INTO {name}(k, v) VALUES (?1, ?2) ON CONFLICT(k) DO UPDATE SET v = excluded.v"),
            delete: format!("DELETE FROM {name} WHERE k = ?1"),
            delete_to: format!("DELETE FROM {name} WHERE k >= ?1 AND k < ?2"),
            delete_from: format!("DELETE FROM {name} WHERE k >= ?1"),
            scan_up: format!("SELECT k, v FROM {name} WHERE k >= ?1 ORDER BY k LIMIT ?2"),
            scan_up_to: format!("SELECT k, v FROM {name} WHERE k >= ?1 AND k < ?2 ORDER BY k LIMIT ?3"),
            scan_down: format!("SELECT k, v FROM {name} WHERE k >= ?1 ORDER BY k DESC LIMIT ?2"),
            scan_down_to: format!("SELECT k, v FROM {name} WHERE k >= ?1 AND k < ?2 ORDER BY k DESC LIMIT ?3"),
        }
    }
}
