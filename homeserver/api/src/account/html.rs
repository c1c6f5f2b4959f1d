//! Pages as text, with everything escaped that came from elsewhere.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use matron_core::{Error, settings::Recaptcha};

use crate::error::status_and_sentence;

/// What came from elsewhere, safe between tags and in quoted attributes.
pub(super) fn esc(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// A page. Its policy allows forms to this server alone, unless [`Page::may_go_to`] says more.
#[derive(Debug)]
pub(super) struct Page {
    title: &'static str,
    body: String,
    status: StatusCode,
    targets: Vec<String>,
    script: Option<&'static str>,
    captcha: Option<String>,
}

impl Page {
    /// A page with this heading; `body` is HTML.
    pub(super) fn new(title: &'static str, body: impl Into<String>) -> Self {
        Self { title, body: body.into(), status: StatusCode::OK, targets: Vec::new(), script: None, captcha: None }
    }

    /// A form on this page may lead the browser to this source.
    // Browsers hold a redirect that follows a form against `form-action`.
    pub(super) fn may_go_to(mut self, source: String) -> Self {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ":/.-_[]+".contains(c);
        if source.chars().all(is_plain) {
            self.targets.push(source);
        }
        self
    }

    /// The page runs this script of the server's own.
    pub(super) fn script(mut self, path: &'static str) -> Self {
        self.script = Some(path);
        self
    }

    /// The page runs this captcha, for which a form on it has [`captcha_field`].
    pub(super) fn captcha(mut self, captcha: Option<&Recaptcha>) -> Self {
        self.captcha = captcha.map(|captcha| captcha.url.trim_end_matches('/').to_owned());
        self
    }

    /// What was refused is said first, and the page has the refusal's status.
    pub(super) fn refused(mut self, error: &Error) -> Self {
        let (status, sentence) = status_and_sentence(error);
        self.status = status;
        self.body = format!("<p class=\"error\" role=\"alert\">{}</p>{}", esc(&sentence), self.body);
        self
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let mut script = self.script.map(|path| format!("<script src=\"{path}\" defer></script>")).unwrap_or_default();
        if let Some(url) = &self.captcha {
            script.push_str(&format!("<script src=\"{}/api.js\" async defer></script>", esc(url)));
        }
        let html = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <title>{title}</title><link rel=\"stylesheet\" href=\"/account/style.css\">{script}</head>\
             <body><main><h1>{title}</h1>{body}</main></body></html>\n",
            title = esc(self.title),
            body = self.body,
        );
        let targets: String = self.targets.iter().map(|target| format!(" {target}")).collect();
        let scripts = match (&self.captcha, self.script) {
            // What the service's documentation asks for; its script gives its elements styles as attributes.
            (Some(url), _) => format!(
                " script-src 'self' {url}/ https://www.gstatic.com/recaptcha/; connect-src 'self' {url}/; \
                 frame-src {url}/ https://recaptcha.google.com/recaptcha/; style-src-attr 'unsafe-inline';"
            ),
            (None, Some(_)) => " script-src 'self'; connect-src 'self';".to_owned(),
            (None, None) => String::new(),
        };
        let policy = format!(
            "default-src 'none'; style-src 'self';{scripts} form-action 'self'{targets}; frame-ancestors 'none'; base-uri 'none'"
        );
        let mut response = (self.status, html).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::try_from(policy).unwrap_or(STRICTEST));
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        guard(&mut response);
        response
    }
}

const STRICTEST: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// What holds for every answer to a browser: kept nowhere, guessed at nowhere, told to nobody else.
fn guard(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

/// The form of somebody who comes with a name and a password; `fields` and `button` are HTML.
pub(super) struct EntryForm<'a> {
    pub(super) action: &'static str,
    pub(super) token: &'a str,
    pub(super) next: &'a str,
    pub(super) name: &'a str,
    pub(super) fields: String,
    pub(super) button: &'static str,
}

impl EntryForm<'_> {
    pub(super) fn html(&self) -> String {
        format!(
            "<form method=\"post\" action=\"{action}\">{token}\
             <input type=\"hidden\" name=\"next\" value=\"{next}\">\
             <label for=\"username\">User name</label>\
             <input id=\"username\" name=\"username\" value=\"{name}\" autocomplete=\"username\" autocapitalize=\"none\" required>\
             {fields}<button type=\"submit\">{button}</button></form>",
            action = self.action,
            token = form_token_field(self.token),
            next = esc(self.next),
            name = esc(self.name),
            fields = self.fields,
            button = self.button,
        )
    }
}

/// A field for a password, which browsers fill in as `autocomplete` says.
pub(super) fn password_field(name: &str, label: &str, autocomplete: &str) -> String {
    format!(
        "<label for=\"{name}\">{label}</label>\
         <input id=\"{name}\" name=\"{name}\" type=\"password\" autocomplete=\"{autocomplete}\" required>"
    )
}

/// The browser goes there, with GET.
///
/// # Errors
/// `M_INVALID_PARAM` for what cannot stand in a header.
pub(super) fn go_to(url: &str) -> Result<Response, PageError> {
    let location = HeaderValue::from_str(url).map_err(|_| Error::invalid("the address cannot be written"))?;
    let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response();
    guard(&mut response);
    Ok(response)
}

/// Where to go after signing in: a page of this server, and nowhere else.
pub(super) fn safe_next(next: Option<&str>) -> String {
    let own = ["/account/", "/_matrix/client/v3/auth/", "/_matrix/client/r0/auth/"];
    next.filter(|next| own.iter().any(|path| next.starts_with(path)))
        .filter(|next| next.len() <= 8_192 && !next.contains('\\') && next.chars().all(|c| c.is_ascii_graphic()))
        .unwrap_or("/account/")
        .to_owned()
}

/// A query parameter's value, encoded.
pub(super) fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Where a person solves the captcha; the form then has a field `g-recaptcha-response`.
pub(super) fn captcha_field(captcha: Option<&Recaptcha>) -> String {
    let key = captcha.and_then(|captcha| captcha.public_key.as_deref());
    let field = |key| {
        format!(
            "<div class=\"g-recaptcha\" data-sitekey=\"{}\"></div>\
             <noscript><p class=\"error\">The captcha needs JavaScript.</p></noscript>",
            esc(key)
        )
    };
    key.map(field).unwrap_or_default()
}

/// The hidden field that guards a form.
pub(super) fn form_token_field(token: &str) -> String {
    format!("<input type=\"hidden\" name=\"form_token\" value=\"{}\">", esc(token))
}

/// A refusal that a person reads.
#[derive(Debug)]
pub(super) struct PageError(Error);

impl From<Error> for PageError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<matron_core::oauth::OAuthError> for PageError {
    fn from(error: matron_core::oauth::OAuthError) -> Self {
        match error {
            matron_core::oauth::OAuthError::Core(error) => Self(error),
            matron_core::oauth::OAuthError::Refused(refusal) => Self(Error::InvalidParam(refusal.description)),
        }
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        Page::new("This did not work", "<p>Go back to the app that you came from and try again.</p>")
            .refused(&self.0)
            .into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_from_elsewhere_is_text() {
        assert_eq!(esc("<b a='\"'>&"), "&lt;b a=&#39;&quot;&#39;&gt;&amp;");
    }

    #[test]
    fn signing_in_leads_to_this_server_s_pages_only() {
        for bad in [
            "https://evil.example/",
            "//evil.example/account/",
            "/\\evil.example",
            "/account/\\evil",
            "/account/\r\nLocation: x",
            "javascript:alert(1)",
            "/_matrix/client/v3/login",
            "",
        ] {
            assert_eq!(safe_next(Some(bad)), "/account/", "{bad}");
        }
        assert_eq!(safe_next(Some("/account/authorize?a=b%20c")), "/account/authorize?a=b%20c");
    }
}
