//! ID tokens: the signature first, then what is claimed.
//!
//! RFC 7515, 7517, 7518, 7519, 8037, 8725. The key's kind decides the algorithm, the token only may agree: neither `none`
//! nor a secret made of a public key can come in.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;

/// The longest token, bytes.
const MAX_TOKEN_BYTES: usize = 64 * 1024;

/// A public key of a provider.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    pub(super) fn is(&self, key_id: &str) -> bool {
        self.kid.as_deref() == Some(key_id)
    }

    /// The one algorithm that this key is used with here.
    fn algorithm(&self) -> Option<&'static str> {
        let algorithm = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => "RS256",
            ("EC", Some("P-256")) => "ES256",
            ("OKP", Some("Ed25519")) => "EdDSA",
            _ => return None,
        };
        let agrees =
            self.alg.as_deref().is_none_or(|alg| alg == algorithm || (alg == "Ed25519" && algorithm == "EdDSA"));
        (agrees && self.purpose.as_deref().is_none_or(|purpose| purpose == "sig")).then_some(algorithm)
    }

    fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        let bytes = |part: &Option<String>| part.as_deref().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        match self.algorithm() {
            Some("RS256") => {
                let (Some(n), Some(e)) = (bytes(&self.n), bytes(&self.e)) else { return false };
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature).is_ok()
            }
            Some("ES256") => {
                let (Some(x), Some(y)) = (bytes(&self.x), bytes(&self.y)) else { return false };
                if x.len() != 32 || y.len() != 32 {
                    return false;
                }
                let point = [&[4], x.as_slice(), &y].concat();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature).is_ok()
            }
            Some("EdDSA") => {
                let Some(x) = bytes(&self.x) else { return false };
                UnparsedPublicKey::new(&ED25519, x).verify(signed, signature).is_ok()
            }
            _ => false,
        }
    }
}

/// Why a token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum JwtError {
    #[error("it is malformed")]
    Malformed,
    #[error("its algorithm is not allowed")]
    Algorithm,
    #[error("no known key has signed it")]
    Signature,
    #[error("it is of another issuer")]
    Issuer,
    #[error("it is for another client")]
    Audience,
    #[error("it is not valid now")]
    Time,
    #[error("it answers another request")]
    Nonce,
    #[error("it names nobody")]
    Subject,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

fn header(token: &str) -> Result<Header, JwtError> {
    let text = token.split('.').next().unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| JwtError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| JwtError::Malformed)
}

/// The key that a token says has signed it.
pub(super) fn key_id(token: &str) -> Option<String> {
    header(token).ok()?.kid
}

/// The claims of a token that one of the keys has signed.
///
/// # Errors
/// [`JwtError::Malformed`], [`JwtError::Algorithm`], [`JwtError::Signature`].
pub(super) fn verified_claims(token: &str, keys: &[Jwk]) -> Result<Map<String, Value>, JwtError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(JwtError::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
    let (_, payload) = signed.split_once('.').filter(|(_, rest)| !rest.contains('.')).ok_or(JwtError::Malformed)?;
    let header = header(token)?;
    if header.crit.is_some() {
        return Err(JwtError::Malformed);
    }
    let algorithm = match header.alg.as_str() {
        known @ ("RS256" | "ES256" | "EdDSA") => known,
        "Ed25519" => "EdDSA",
        _ => return Err(JwtError::Algorithm),
    };
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| JwtError::Malformed)?;
    let may_have_signed = |key: &&Jwk| {
        key.algorithm() == Some(algorithm) && (header.kid.is_none() || key.kid.is_none() || key.kid == header.kid)
    };
    if !keys.iter().filter(may_have_signed).any(|key| key.verifies(signed.as_bytes(), &signature)) {
        return Err(JwtError::Signature);
    }
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| JwtError::Malformed)?;
    serde_json::from_slice(&payload).map_err(|_| JwtError::Malformed)
}

/// What an ID token must say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) audience: &'a str,
    pub(super) nonce: &'a str,
    pub(super) now_s: u64,
    pub(super) skew_s: u64,
}

impl Expected<'_> {
    /// Passes for claims that are meant for this request.
    ///
    /// # Errors
    /// The first thing that is wrong.
    ///
    /// OpenID Connect Core 1.0, section 3.1.3.7.
    pub(super) fn check(&self, claims: &Map<String, Value>) -> Result<(), JwtError> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if text("iss") != Some(self.issuer) {
            return Err(JwtError::Issuer);
        }
        self.check_audience(claims)?;
        let number = |name: &str| claims.get(name).and_then(seconds);
        let expires = number("exp").ok_or(JwtError::Time)?;
        let issued = number("iat").ok_or(JwtError::Time)?;
        let latest = self.now_s.saturating_add(self.skew_s);
        let too_early = claims.contains_key("nbf") && number("nbf").is_none_or(|from| from > latest);
        if expires.saturating_add(self.skew_s) <= self.now_s || issued > latest || too_early {
            return Err(JwtError::Time);
        }
        let nonce = text("nonce").unwrap_or_default();
        if !bool::from(nonce.as_bytes().ct_eq(self.nonce.as_bytes())) {
            return Err(JwtError::Nonce);
        }
        match text("sub") {
            Some(subject) if (1..=255).contains(&subject.len()) => Ok(()),
            _ => Err(JwtError::Subject),
        }
    }

    fn check_audience(&self, claims: &Map<String, Value>) -> Result<(), JwtError> {
        let audiences: Vec<&str> = match claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let party = claims.get("azp");
        let fits = audiences.contains(&self.audience)
            && (audiences.len() == 1 || party.is_some())
            && party.is_none_or(|party| party.as_str() == Some(self.audience));
        if fits { Ok(()) } else { Err(JwtError::Audience) }
    }
}

/// A NumericDate: whole or broken seconds.
fn seconds(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let broken = value.as_f64().filter(|number| (0.0..1e15).contains(number))?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the bounds just checked")]
        Some(broken as u64)
    })
}

#[cfg(test)]
mod tests {
    use ring::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
    };
    use serde_json::json;

    use super::*;

    fn jwk(value: Value) -> Jwk {
        serde_json::from_value(value).unwrap()
    }

    fn input(header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}", part(header), part(claims))
    }

    fn ed25519() -> (Ed25519KeyPair, Jwk) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        (pair, jwk(json!({ "kty": "OKP", "crv": "Ed25519", "kid": "a", "x": x })))
    }

    fn signed(header: &Value, claims: &Value) -> (String, Jwk) {
        let (pair, key) = ed25519();
        let text = input(header, claims);
        let signature = URL_SAFE_NO_PAD.encode(pair.sign(text.as_bytes()));
        (format!("{text}.{signature}"), key)
    }

    #[test]
    fn a_signature_of_each_kind_is_verified() {
        let claims = json!({ "sub": "alice" });
        let (token, key) = signed(&json!({ "alg": "EdDSA", "kid": "a" }), &claims);
        assert_eq!(verified_claims(&token, &[key]).unwrap()["sub"], "alice");

        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap();
        let point = pair.public_key().as_ref();
        let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
        let key = jwk(json!({ "kty": "EC", "crv": "P-256", "use": "sig", "x": part(1..33), "y": part(33..65) }));
        let text = input(&json!({ "alg": "ES256" }), &claims);
        let signature = URL_SAFE_NO_PAD.encode(pair.sign(&random, text.as_bytes()).unwrap());
        assert_eq!(verified_claims(&format!("{text}.{signature}"), &[key]).unwrap()["sub"], "alice");

        let rsa: Value = serde_json::from_str(include_str!("rs256.json")).unwrap();
        let token = rsa["token"].as_str().unwrap();
        let keys = [jwk(rsa["key"].clone())];
        assert_eq!(verified_claims(token, &keys).unwrap()["sub"], "alice");
        let mut altered = token.to_owned();
        altered.replace_range(
            token.len() - 6..token.len() - 5,
            if token.as_bytes()[token.len() - 6] == b'A' { "B" } else { "A" },
        );
        assert_eq!(verified_claims(&altered, &keys), Err(JwtError::Signature));
    }

    #[test]
    fn what_is_not_signed_by_a_known_key_in_its_own_way_is_refused() {
        let claims = json!({ "sub": "alice" });
        let (token, key) = signed(&json!({ "alg": "EdDSA", "kid": "a" }), &claims);
        let none = format!("{}.", input(&json!({ "alg": "none" }), &claims));
        assert_eq!(verified_claims(&none, std::slice::from_ref(&key)), Err(JwtError::Algorithm));
        for alg in ["HS256", "RS512", "", "eddsa"] {
            let (token, key) = signed(&json!({ "alg": alg, "kid": "a" }), &claims);
            assert_eq!(verified_claims(&token, &[key]), Err(JwtError::Algorithm), "{alg}");
        }
        for alg in ["RS256", "ES256"] {
            let (token, key) = signed(&json!({ "alg": alg, "kid": "a" }), &claims);
            assert_eq!(verified_claims(&token, &[key]), Err(JwtError::Signature), "{alg}");
        }
        let (critical, _) = signed(&json!({ "alg": "EdDSA", "crit": ["exp"] }), &claims);
        assert_eq!(verified_claims(&critical, std::slice::from_ref(&key)), Err(JwtError::Malformed));
        let (other, _) = signed(&json!({ "alg": "EdDSA", "kid": "b" }), &claims);
        assert_eq!(verified_claims(&other, std::slice::from_ref(&key)), Err(JwtError::Signature));
        assert_eq!(verified_claims(&token, &[]), Err(JwtError::Signature));
        let (head, rest) = token.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        let forged = format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode(r#"{"sub":"admin"}"#));
        assert_eq!(verified_claims(&forged, std::slice::from_ref(&key)), Err(JwtError::Signature));
        for malformed in ["", ".", "..", "a.b", "a.b.c", "a.b.c.d", &format!("{token}.x"), &format!("{token}=")] {
            assert!(verified_claims(malformed, std::slice::from_ref(&key)).is_err(), "{malformed}");
        }
    }

    #[test]
    fn a_token_for_another_is_refused() {
        let expected =
            Expected { issuer: "https://id.example", audience: "matron", nonce: "n", now_s: 1_000_000, skew_s: 60 };
        let good = json!({
            "iss": "https://id.example", "aud": ["matron"], "exp": 1_000_100, "iat": 999_990, "nonce": "n", "sub": "alice",
        });
        let check = |change: &dyn Fn(&mut Value)| {
            let mut claims = good.clone();
            change(&mut claims);
            expected.check(claims.as_object().unwrap())
        };
        assert_eq!(check(&|_| {}), Ok(()));
        assert_eq!(check(&|c| c["aud"] = json!("matron")), Ok(()));
        assert_eq!(check(&|c| c["iss"] = json!("https://id.example/")), Err(JwtError::Issuer));
        assert_eq!(check(&|c| c["aud"] = json!("other")), Err(JwtError::Audience));
        assert_eq!(check(&|c| c["aud"] = json!(["matron", "other"])), Err(JwtError::Audience));
        assert_eq!(check(&|c| c["azp"] = json!("other")), Err(JwtError::Audience));
        assert_eq!(
            check(&|c| {
                c.as_object_mut().unwrap().remove("aud");
            }),
            Err(JwtError::Audience)
        );
        assert_eq!(check(&|c| c["exp"] = json!(999_939)), Err(JwtError::Time));
        assert_eq!(check(&|c| c["exp"] = json!("1000100")), Err(JwtError::Time));
        assert_eq!(check(&|c| c["iat"] = json!(1_000_061)), Err(JwtError::Time));
        assert_eq!(check(&|c| c["nbf"] = json!("x")), Err(JwtError::Time));
        assert_eq!(check(&|c| c["nonce"] = json!("m")), Err(JwtError::Nonce));
        assert_eq!(
            check(&|c| {
                c.as_object_mut().unwrap().remove("nonce");
            }),
            Err(JwtError::Nonce)
        );
        assert_eq!(check(&|c| c["sub"] = json!("")), Err(JwtError::Subject));
    }
}
