//! Files and pictures of the other trust.

use std::io::Cursor;

use serde_json::Value;

use crate::{http::part, person::Person, trusts::Trusts};

fn picture() -> Vec<u8> {
    let drawing = drawing();
    let mut png = Cursor::new(Vec::new());
    drawing.write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

fn drawing() -> image::RgbImage {
    image::RgbImage::from_fn(1000, 800, |x, y| {
        image::Rgb([u8::try_from(x % 256).unwrap(), u8::try_from(y % 256).unwrap(), 9])
    })
}

/// The server and the id in `mxc://server/id`, as parts of a path.
fn location(uploaded: &Value) -> String {
    let uri = uploaded["content_uri"].as_str().unwrap();
    let (server, id) = uri.strip_prefix("mxc://").unwrap().split_once('/').unwrap();
    format!("{}/{}", part(server), part(id))
}

pub(crate) fn a_file_is_opened_at_the_other_trust(trusts: &Trusts) {
    for (host, guest) in trusts.both_ways() {
        let (author, reader) = (Person::at(host, "author"), Person::at(guest, "reader"));
        let bytes: Vec<u8> = (0..200_000_u32).map(|number| u8::try_from(number % 251).unwrap()).collect();
        let uploaded = author.upload("/_matrix/media/v3/upload?filename=scan.bin", "application/octet-stream", &bytes);
        let reply = reader.ask("GET", &format!("v1/media/download/{}", location(&uploaded)), &Value::Null);
        assert_eq!(reply.status, 200, "{} cannot open it: {}", guest.name, reply.text());
        assert!(reply.body == bytes, "the file came out different");
        let missing = reader.ask("GET", &format!("v1/media/download/{}/nothing", part(&host.name)), &Value::Null);
        assert_eq!(missing.status, 404, "{}", missing.text());
    }
}

pub(crate) fn a_thumbnail_is_shown_at_the_other_trust(trusts: &Trusts) {
    for (host, guest) in trusts.both_ways() {
        let (author, reader) = (Person::at(host, "author"), Person::at(guest, "reader"));
        let uploaded = author.upload("/_matrix/media/v3/upload?filename=scan.png", "image/png", &picture());
        let path = format!("v1/media/thumbnail/{}?width=320&height=240&method=scale", location(&uploaded));
        let reply = reader.ask("GET", &path, &Value::Null);
        assert_eq!(reply.status, 200, "{} shows none: {}", guest.name, reply.text());
        let shown = image::load_from_memory(&reply.body).unwrap();
        assert!(shown.width() < 1000, "the picture was not made smaller: {}", shown.width());
    }
}
