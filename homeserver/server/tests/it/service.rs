//! The application service runs in the server's own process.

use serde_json::json;

use crate::{
    free_address::free_address,
    support::{Home, request, wait_until},
};

#[test]
fn the_bot_comes_with_the_server_when_it_is_configured() {
    let home = Home::new();
    // The service must know its homeserver's address beforehand.
    let (server_address, service_address) = (free_address(), free_address());
    let service = home.path().join("appservice.toml");
    let text = format!(
        "homeserver_url = \"http://{server_address}\"\nserver_name = \"matron.test\"\nlisten = \"{service_address}\"\n\
         data_dir = {:?}\nregistration = {:?}\nbot_localpart = \"matron\"\n",
        home.path().join("service-data"),
        home.path().join("registration.yaml"),
    );
    std::fs::write(&service, text).unwrap();
    home.configure(json!({"listen": {"address": server_address}, "appservice_config": service}));
    let mut server = home.start();
    server.wait_for_line("the application service listens");
    let bot = "/_matrix/client/v3/profile/@matron:matron.test";
    wait_until("the bot logs in", || {
        request(&server.address, "GET", "/_matrix/client/v3/register/available?username=matron", None, None)
            .is_ok_and(|reply| reply.status == 400)
    });
    assert!(server.get(bot, None).status < 500);
    let status = server.stop();
    assert!(status.success(), "{status}");
}
