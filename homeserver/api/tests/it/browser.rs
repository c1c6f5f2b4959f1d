//! A browser without scripts: cookies, redirects, forms.

use std::collections::BTreeMap;

use axum::body::Body;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use crate::server::Server;

/// A browser. It follows redirects on this server, and stops at those that lead elsewhere.
pub(crate) struct Browser<'a> {
    server: &'a Server,
    cookies: BTreeMap<String, String>,
}

/// Where the browser ended.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) status: StatusCode,
    /// The path and query of the page, or the whole URL elsewhere.
    pub(crate) at: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) html: String,
}

/// A form of a page.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    pub(crate) action: String,
    pub(crate) fields: BTreeMap<String, String>,
}

impl Shown {
    /// Fails unless the page holds this text.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert!(self.html.contains(text), "{} does not say {text:?}: {}", self.at, self.html);
        self
    }

    /// Fails unless the browser was led out of this server, to a URL that begins so.
    #[track_caller]
    pub(crate) fn led_to(&self, start: &str) -> BTreeMap<String, String> {
        assert!(self.at.starts_with(start), "{} {}", self.at, self.html);
        let answer = self.at.split_once(['#', '?']).map_or("", |(_, answer)| answer);
        form_urlencoded::parse(answer.as_bytes()).into_owned().collect()
    }

    /// The form with this action, whatever its query.
    #[track_caller]
    pub(crate) fn form(&self, action: &str) -> Form {
        let forms = self.html.split("<form ").skip(1).map(|rest| rest.split("</form>").next().unwrap());
        let found = forms.map(form_of).find(|form| form.action.split('?').next() == Some(action));
        found.unwrap_or_else(|| panic!("{} has no form to {action}: {}", self.at, self.html))
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split(&format!("{name}=\"")).nth(1)?.split('"').next()?;
    Some(
        value
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&#39;", "'")
            .replace("&amp;", "&"),
    )
}

fn form_of(html: &str) -> Form {
    let action = attribute(html, "action").unwrap();
    let inputs = html.split("<input ").skip(1).map(|rest| rest.split('>').next().unwrap());
    let fields = inputs.filter(|tag| !tag.contains("checkbox"));
    let fields = fields.filter_map(|tag| Some((attribute(tag, "name")?, attribute(tag, "value").unwrap_or_default())));
    Form { action, fields: fields.collect() }
}

impl Form {
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.insert(name.to_owned(), value.to_owned());
        self
    }
}

impl<'a> Browser<'a> {
    pub(crate) fn new(server: &'a Server) -> Self {
        Self { server, cookies: BTreeMap::new() }
    }

    pub(crate) fn cookie(&self) -> Option<&String> {
        self.cookies.values().next()
    }

    pub(crate) async fn get(&mut self, path: &str) -> Shown {
        self.go(Method::GET, path.to_owned(), String::new()).await
    }

    pub(crate) async fn submit(&mut self, form: Form) -> Shown {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(&form.fields).finish();
        self.go(Method::POST, form.action, body).await
    }

    /// Signs in at the page that is shown.
    pub(crate) async fn sign_in(&mut self, page: &Shown, name: &str) -> Shown {
        let form = page.form("/account/login").with("username", name).with("password", "a long password");
        self.submit(form).await
    }

    async fn go(&mut self, mut method: Method, mut path: String, mut body: String) -> Shown {
        for _ in 0..10 {
            let jar: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let request = Request::builder()
                .method(&method)
                .uri(&path)
                .header(header::COOKIE, jar.join("; "))
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Body::from(body.clone()))
                .unwrap();
            let response = self.server.router.clone().oneshot(request).await.unwrap();
            let (parts, content) = response.into_parts();
            for cookie in parts.headers.get_all(header::SET_COOKIE) {
                let cookie = cookie.to_str().unwrap();
                assert!(cookie.contains("; HttpOnly") && cookie.contains("; SameSite=Lax"), "{cookie}");
                let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
            if parts.status.is_redirection() {
                let target = parts.headers[header::LOCATION].to_str().unwrap().to_owned();
                if !target.starts_with('/') || target.starts_with("//") {
                    return Shown { status: parts.status, at: target, headers: parts.headers, html: String::new() };
                }
                (method, path, body) = (Method::GET, target, String::new());
                continue;
            }
            let html = String::from_utf8(content.collect().await.unwrap().to_bytes().to_vec()).unwrap();
            return Shown { status: parts.status, at: path, headers: parts.headers, html };
        }
        panic!("the redirects do not end at {path}")
    }
}
