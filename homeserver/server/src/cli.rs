//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Matron, a Matrix homeserver for healthcare federation.
#[derive(Debug, Parser)]
#[command(name = "matron", version, about, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// The configuration file, TOML or JSON (by its extension); without one the defaults hold.
    #[arg(long, global = true, env = "MATRON_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do; `serve` when nothing is said.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server.
    Serve,
    /// Print or check the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Create, list and change accounts.
    #[command(subcommand)]
    User(UserCommand),
    /// Make, extend, sign and verify the federation register.
    #[command(subcommand)]
    Register(RegisterCommand),
    /// Issue, show, verify and revoke clinicians' credentials.
    #[command(subcommand)]
    Credential(CredentialCommand),
    /// Explain decisions, check and show the policy.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Verify and show the audit log.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// How it stands with other servers, what is wrong with one, and trying it again.
    #[command(subcommand)]
    Federation(FederationCommand),
    /// Examine the configuration, the machine and the data, and say what is wrong.
    Doctor {
        /// Also reach these servers; those of `federation.addresses` are reached anyway.
        #[arg(long = "peer")]
        peers: Vec<String>,
    },
    /// The key ring, without which nothing that was said can be read.
    #[command(subcommand)]
    Keyring(KeyringCommand),
    /// Write a consistent copy of the data to a new directory.
    Backup(BackupArguments),
    /// Put a backup into an empty data directory.
    Restore { directory: PathBuf },
    /// Two trusts on this machine share a clinical room, step by step.
    #[cfg(feature = "demo")]
    Demo(DemoArguments),
}

/// `matron keyring …`
#[derive(Debug, Subcommand)]
pub(crate) enum KeyringCommand {
    /// Begin an empty key ring where the old one is lost for good; what it sealed stays unreadable.
    New,
}

/// `matron federation …`
#[derive(Debug, Subcommand)]
pub(crate) enum FederationCommand {
    /// Last success, failures, queue and next try of a server, or of all.
    Status {
        /// The server's name; absent: all.
        server: Option<String>,
    },
    /// Send what waits for a server now, whatever failed before.
    Retry {
        /// The server's name.
        server: String,
    },
    /// Go the way to a server step by step and say what is wrong.
    Probe {
        /// The server's name.
        server: String,
    },
}

/// `matron config …`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every key with its meaning and default.
    Example,
    /// Read the configuration and say whether it is good.
    Check,
}

/// `matron user …`
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Create an account; the password is read from standard input or `--password-file`.
    Create {
        /// The part of the user id before the colon.
        localpart: String,
        #[command(flatten)]
        password: PasswordArguments,
        /// The account may use the admin API.
        #[arg(long)]
        admin: bool,
    },
    /// List accounts.
    List {
        /// How many at most.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Set a new password and log all devices out.
    SetPassword {
        /// User id or localpart.
        user: String,
        #[command(flatten)]
        password: PasswordArguments,
    },
    /// Make an account an operator's, or an ordinary one again.
    Admin {
        /// User id or localpart.
        user: String,
        /// Take the right away.
        #[arg(long)]
        revoke: bool,
    },
    /// Deactivate an account for good; its user id is never given out again.
    Deactivate {
        /// User id or localpart.
        user: String,
        /// Also ask that the person's messages are hidden from those who join later.
        #[arg(long)]
        erase: bool,
    },
    /// Make a token with which people can register (`registration.mode = "token"`).
    Token {
        /// How many people may use it; absent: any number.
        #[arg(long)]
        uses: Option<u64>,
        /// Until when it is good, milliseconds since 1970; absent: for ever.
        #[arg(long)]
        expires_at_ms: Option<u64>,
    },
}

/// Where a password comes from; never the command line, which others on the machine can read.
#[derive(Debug, Args)]
pub(crate) struct PasswordArguments {
    /// A file with the password; absent: standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

/// `matron register …`
#[derive(Debug, Subcommand)]
pub(crate) enum RegisterCommand {
    /// Make an empty, unsigned register, and the register key if it does not exist.
    New {
        /// The register to write.
        file: PathBuf,
        /// The register's signing key, mode 0600; made if absent.
        #[arg(long)]
        key: PathBuf,
        /// The name of the federation.
        #[arg(long, default_value = "federation")]
        name: String,
        /// How many days the register is good for after it is signed.
        #[arg(long, default_value_t = 30)]
        days: u64,
    },
    /// Add an organisation, or replace the one with the same code; the register is unsigned afterwards.
    Add {
        /// The register to change.
        file: PathBuf,
        /// Organisation code.
        #[arg(long)]
        code: String,
        /// Name of the organisation.
        #[arg(long)]
        name: String,
        /// Server names of the organisation.
        #[arg(long = "server", required = true)]
        servers: Vec<String>,
        /// Jurisdiction, such as `GB-ENG`.
        #[arg(long, default_value = "")]
        jurisdiction: String,
        /// The organisation's credential key, mode 0600; made if absent. Only its public half enters the register.
        #[arg(long)]
        credential_key: PathBuf,
        /// User ids that govern rooms in its name: its governance bot.
        #[arg(long)]
        governance: Vec<String>,
        /// User ids of its machines; a `*` may end the local part.
        #[arg(long = "service")]
        services: Vec<String>,
    },
    /// Sign the register anew: version one higher, valid from now.
    Sign {
        /// The register to sign.
        file: PathBuf,
        /// The register's signing key.
        #[arg(long)]
        key: PathBuf,
        /// How many days it is good for.
        #[arg(long, default_value_t = 30)]
        days: u64,
    },
    /// Print who is in the register.
    Show { file: PathBuf },
    /// Verify the signature with the register's public key.
    Verify {
        file: PathBuf,
        /// Public key, base64; or the configuration's `policy.register_keys` when absent.
        #[arg(long)]
        public_key: Vec<String>,
    },
}

/// `matron credential …`
#[derive(Debug, Subcommand)]
pub(crate) enum CredentialCommand {
    /// Issue a credential and print it, or install it in the running server.
    Issue {
        /// Whose.
        user_id: String,
        /// Code of the issuing organisation.
        #[arg(long)]
        organisation: String,
        /// The organisation's credential key.
        #[arg(long)]
        key: PathBuf,
        /// Profession, such as `nurse`.
        #[arg(long)]
        profession: String,
        /// Roles, such as `ward-manager`.
        #[arg(long = "role")]
        roles: Vec<String>,
        /// What was verified: `identity`, `employment` or `right_to_practise`.
        #[arg(long, default_value = "right_to_practise")]
        level: String,
        /// How many days it is good for.
        #[arg(long, default_value_t = 90)]
        days: u64,
        /// Also give it to the user of this server, whose rooms then see it.
        #[arg(long)]
        install: bool,
    },
    /// Print a credential in plain words.
    Show { file: PathBuf },
    /// Verify a credential with a register.
    Verify {
        file: PathBuf,
        /// The signed register; absent: the configuration's.
        #[arg(long)]
        register: Option<PathBuf>,
        /// Public key of the register, base64; absent: the configuration's.
        #[arg(long)]
        public_key: Vec<String>,
    },
    /// Revoke a credential: print the signed notice, and give it to this server, which tells every room.
    Revoke {
        /// The credential's serial number.
        serial: String,
        /// Code of the organisation that issued it.
        #[arg(long)]
        organisation: String,
        /// The organisation's credential key.
        #[arg(long)]
        key: PathBuf,
        /// Only print the notice.
        #[arg(long)]
        print_only: bool,
    },
}

/// `matron policy …`
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Say in plain words why something was permitted or refused.
    Explain { decision_id: String },
    /// Read the policy of the configuration and say whether it is good.
    Check,
    /// Print the policy in force.
    Show,
}

/// `matron audit …`
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Verify the whole chain of the audit log.
    Verify,
    /// Print entries of the audit log, one JSON object a line.
    Show {
        /// First entry.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many at most.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
}

/// `matron backup …`
#[derive(Debug, Args)]
pub(crate) struct BackupArguments {
    /// A directory that does not exist yet.
    pub(crate) directory: PathBuf,
    /// Copy the key ring too. Whoever holds such a copy and the master key can read what was deleted
    /// after it was made: keep it apart, and no longer than the shortest lifetime.
    #[arg(long)]
    pub(crate) with_key_ring: bool,
}

/// `matron demo …`
#[cfg(feature = "demo")]
#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// Stop at the end; the exit status says whether every step held.
    #[arg(long)]
    pub(crate) check: bool,
}
