//! What a CAS server says of a ticket.
//!
//! CAS Protocol 3.0, section 2.5 and appendix A: an XML document with one success or one failure in it.

use std::collections::BTreeMap;

use roxmltree::{Document, Node, ParsingOptions};

/// The namespace of everything that CAS says.
const NAMESPACE: &str = "http://www.yale.edu/tp/cas";

/// How many elements, texts and comments an answer may have.
const MAX_NODES: u32 = 4_096;

/// The longest user name, bytes.
const MAX_USER_BYTES: usize = 255;

/// An answer that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CasAnswer {
    /// The ticket is good for this service.
    Valid(CasPrincipal),
    /// It is not; the code is the server's.
    Refused(String),
    /// It is, but another service holds it in the user's name.
    Proxied,
}

/// Who showed their credentials to the CAS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CasPrincipal {
    /// Their name there.
    pub user: String,
    /// What else is said of them; an attribute may have several values.
    pub attributes: BTreeMap<String, Vec<String>>,
}

/// Why an answer was not understood.
#[derive(Debug, thiserror::Error)]
pub enum CasAnswerError {
    /// It is no text.
    #[error("the answer is not UTF-8")]
    Encoding(#[from] std::str::Utf8Error),
    /// It is no XML, has a document type, or is too large.
    #[error("the answer is no XML of the permitted kind and size")]
    Xml(#[from] roxmltree::Error),
    /// It is XML of another form.
    #[error("the answer {0}")]
    Form(&'static str),
}

impl CasAnswer {
    /// What the answer says. Document types are refused, and with them every entity but the predefined ones.
    ///
    /// # Errors
    /// [`CasAnswerError`] for what is no answer of the CAS protocol, or one that could be read in two ways.
    pub fn parse(bytes: &[u8]) -> Result<Self, CasAnswerError> {
        let text = std::str::from_utf8(bytes)?;
        let options = ParsingOptions { allow_dtd: false, nodes_limit: MAX_NODES, ..ParsingOptions::default() };
        let document = Document::parse_with_options(text, options)?;
        let root = document.root_element();
        if !is(root, "serviceResponse") {
            return Err(CasAnswerError::Form("is no `serviceResponse` of CAS"));
        }
        let mut said = root.children().filter(Node::is_element);
        let (Some(said), None) = (said.next(), said.next()) else {
            return Err(CasAnswerError::Form("does not hold one element"));
        };
        if is(said, "authenticationFailure") {
            let code = said.attribute("code").unwrap_or_default();
            let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
            return Ok(Self::Refused(code.chars().filter(plain).take(64).collect()));
        }
        if !is(said, "authenticationSuccess") {
            return Err(CasAnswerError::Form("holds neither success nor failure"));
        }
        if said.children().any(|child| is(child, "proxies")) {
            return Ok(Self::Proxied);
        }
        let user = only(said, "user")?.and_then(text_of).filter(|user| user.len() <= MAX_USER_BYTES);
        let user = user.ok_or(CasAnswerError::Form("does not name a user"))?;
        let attributes = only(said, "attributes")?.map(attributes_of).unwrap_or_default();
        Ok(Self::Valid(CasPrincipal { user, attributes }))
    }
}

fn is(node: Node<'_, '_>, name: &str) -> bool {
    node.has_tag_name((NAMESPACE, name))
}

/// The child with this name, of which there must not be two.
fn only<'a, 'input>(parent: Node<'a, 'input>, name: &str) -> Result<Option<Node<'a, 'input>>, CasAnswerError> {
    let mut found = parent.children().filter(|child| is(*child, name));
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(CasAnswerError::Form("says a thing twice")),
        (first, None) => Ok(first),
    }
}

fn attributes_of(parent: Node<'_, '_>) -> BTreeMap<String, Vec<String>> {
    let mut attributes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for child in parent.children().filter(Node::is_element) {
        if let Some(value) = text_of(child) {
            attributes.entry(child.tag_name().name().to_owned()).or_default().push(value);
        }
    }
    attributes
}

/// The text of an element that holds text alone, if there is any.
// A comment or an element in its midst would make two texts, of which one alone might be somebody else's name.
fn text_of(node: Node<'_, '_>) -> Option<String> {
    let mut text = String::new();
    for child in node.children() {
        text.push_str(child.text().filter(|_| child.is_text())?);
    }
    let text = text.trim();
    (!text.is_empty() && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(inside: &str) -> String {
        format!("<cas:serviceResponse xmlns:cas='http://www.yale.edu/tp/cas'>{inside}</cas:serviceResponse>")
    }

    fn success(inside: &str) -> Result<CasAnswer, CasAnswerError> {
        CasAnswer::parse(answer(&format!("<cas:authenticationSuccess>{inside}</cas:authenticationSuccess>")).as_bytes())
    }

    #[test]
    fn a_success_names_the_user_and_all_values_of_their_attributes() {
        let inside = "\n <cas:user> amira </cas:user><cas:attributes><cas:displayName>Amira &lt;Khan&gt; &#38; Co</cas:displayName>\
            <cas:role>nurse</cas:role><cas:role><![CDATA[ward 3]]></cas:role><cas:empty/><cas:nested><cas:x>1</cas:x></cas:nested>\
            </cas:attributes><cas:proxyGrantingTicket>PGTIOU-1</cas:proxyGrantingTicket>";
        let CasAnswer::Valid(principal) = success(inside).unwrap() else { panic!("not valid") };
        assert_eq!(principal.user, "amira");
        assert_eq!(principal.attributes["displayName"], ["Amira <Khan> & Co"]);
        assert_eq!(principal.attributes["role"], ["nurse", "ward 3"]);
        assert_eq!(principal.attributes.len(), 2);
    }

    #[test]
    fn a_failure_has_a_code_that_can_be_logged() {
        let failure =
            answer("<cas:authenticationFailure code='INVALID_TICKET\n!'>ST-1 is unknown</cas:authenticationFailure>");
        assert_eq!(CasAnswer::parse(failure.as_bytes()).unwrap(), CasAnswer::Refused("INVALID_TICKET".to_owned()));
    }

    #[test]
    fn a_ticket_that_a_proxy_holds_signs_nobody_in() {
        let proxied =
            "<cas:user>amira</cas:user><cas:proxies><cas:proxy>https://mail.example/</cas:proxy></cas:proxies>";
        assert_eq!(success(proxied).unwrap(), CasAnswer::Proxied);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for inside in [
            "",
            "<cas:user/>",
            "<cas:user>  </cas:user>",
            "<cas:user>admin<!-- -->istrator</cas:user>",
            "<cas:user>admin<cas:x/>istrator</cas:user>",
            "<cas:user>admin<?x?>istrator</cas:user>",
            "<cas:user>a&#10;b</cas:user>",
            "<cas:user>amira</cas:user><cas:user>admin</cas:user>",
            "<cas:user>amira</cas:user><cas:attributes/><cas:attributes/>",
            "<user>amira</user>",
            "<user xmlns='https://other.example'>amira</user>",
        ] {
            assert!(success(inside).is_err(), "{inside}");
        }
        let long = format!("<cas:user>{}</cas:user>", "a".repeat(256));
        assert!(success(&long).is_err());
    }

    #[test]
    fn what_is_no_answer_of_cas_is_refused() {
        let valid = answer("<cas:authenticationSuccess><cas:user>amira</cas:user></cas:authenticationSuccess>");
        let bomb = "<!DOCTYPE x [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;&a;'>]>";
        let outside = "<!DOCTYPE x SYSTEM 'file:///etc/passwd'>";
        let twice = answer(
            "<cas:authenticationFailure code='INVALID_TICKET'/>\
             <cas:authenticationSuccess><cas:user>amira</cas:user></cas:authenticationSuccess>",
        );
        let nested = answer(&format!(
            "<x>{}</x>",
            "<cas:authenticationSuccess><cas:user>amira</cas:user></cas:authenticationSuccess>"
        ));
        let wide = answer(&"<a/>".repeat(5_000));
        let deep = format!("{}{}", "<a>".repeat(4_000), "</a>".repeat(4_000));
        for bad in [
            String::new(),
            "yes\namira\n".to_owned(),
            "{}".to_owned(),
            format!("{bomb}{valid}"),
            format!("{outside}{valid}"),
            valid.replace("amira", "&a;"),
            valid.replace("yale", "jail"),
            valid.replace("</cas:serviceResponse>", ""),
            format!("{valid}{valid}"),
            answer(""),
            answer("<cas:proxySuccess/>"),
            twice,
            nested,
            wide,
            deep,
        ] {
            assert!(CasAnswer::parse(bad.as_bytes()).is_err(), "{}", bad.get(..200).unwrap_or(&bad));
        }
        assert!(CasAnswer::parse(b"\xff\xfe<").is_err());
        assert!(CasAnswer::parse(valid.as_bytes()).is_ok());
    }
}
