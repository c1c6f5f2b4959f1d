//! Every endpoint that the server has, read from the router itself: a new one is tried without being listed anywhere.

/// A method on a path with its parameters unfilled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    pub(crate) path: String,
    pub(crate) method: &'static str,
}

impl Endpoint {
    /// `GET /_matrix/…/{room_id}/…`
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

const METHODS: &[&str] = &["get", "delete", "patch", "post", "put"];

/// What the binary adds to the router of `matron-api`.
const OF_THE_BINARY: &[&str] = &["/health", "/metrics"];

/// All endpoints, sorted.
pub(crate) fn endpoints() -> Vec<Endpoint> {
    // The router prints `paths: {RouteId(7): "/a", …}` and `routes: {RouteId(7): MethodRouter(…), …}`, in any order.
    let printed = format!("{:?}", matron_api::routes());
    let (table, _fallbacks) = printed.split_once("fallback_router").unwrap();
    let (mut paths, mut handlers) = (Vec::new(), Vec::new());
    for entry in table.split("RouteId(").skip(1) {
        let (id, entry) = entry.split_once("): ").unwrap();
        let id: u32 = id.parse().unwrap();
        match entry.strip_prefix('"') {
            Some(path) => paths.push((id, path.split_once('"').unwrap().0.to_owned())),
            None => handlers.push((id, methods(entry))),
        }
    }
    let mut endpoints = Vec::new();
    for (id, path) in &paths {
        let (_, methods) = handlers.iter().find(|(of, _)| of == id).unwrap();
        endpoints.extend(methods.iter().map(|method| Endpoint { path: path.clone(), method }));
    }
    endpoints.extend(OF_THE_BINARY.iter().map(|path| Endpoint { path: (*path).to_owned(), method: "GET" }));
    endpoints.sort();
    endpoints
}

fn methods(printed: &str) -> Vec<&'static str> {
    let names = ["GET", "DELETE", "PATCH", "POST", "PUT"];
    let has = |field: &str| !printed.split_once(&format!("{field}: ")).unwrap().1.starts_with("None");
    METHODS.iter().zip(names).filter(|(field, _)| has(field)).map(|(_, name)| name).collect()
}

#[test]
fn the_router_tells_its_endpoints() {
    let endpoints = endpoints();
    assert!(endpoints.len() > 250, "only {} endpoints: the router prints its table in another way", endpoints.len());
    for known in [
        "GET /_matrix/client/v3/sync",
        "PUT /_matrix/client/v3/rooms/{room_id}/state/{event_type}/{state_key}",
        "PUT /_matrix/federation/v1/send/{txn_id}",
        "POST /_synapse/admin/v1/register",
    ] {
        assert!(endpoints.iter().any(|endpoint| endpoint.name() == known), "{known}");
    }
    assert!(!endpoints.iter().any(|endpoint| endpoint.name() == "PUT /_matrix/client/v3/sync"));
}
