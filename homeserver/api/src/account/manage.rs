//! `/account/`: one's own account.
//!
//! SPEC: v1.19 Client-Server API, "Account management". MSC: 4191 had other names for some actions.

use std::{collections::BTreeMap, sync::Arc};

use axum::{extract::State, response::Response};
use matron_core::{Core, Error, accounts::DeviceView, oauth::Browser};
use ruma::OwnedDeviceId;
use serde::Deserialize;

use super::{
    html::{Page, PageError, encoded, esc, form_token_field, go_to},
    visit::{Posted, Visit, check_served},
};
use crate::extract::Query;

#[derive(Deserialize)]
pub(super) struct Params {
    action: Option<String>,
    device_id: Option<String>,
    done: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Profile {
    #[serde(default)]
    display_name: String,
}

#[derive(Deserialize)]
pub(super) struct EndDevice {
    device_id: OwnedDeviceId,
}

#[derive(Deserialize)]
pub(super) struct Deactivate {
    #[serde(default)]
    user_id: String,
    erase: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Nothing {}

/// The page of an action, or of all.
pub(super) async fn show(
    State(core): State<Arc<Core>>,
    visit: Visit,
    Query(params): Query<Params>,
) -> Result<Response, PageError> {
    check_served(&core)?;
    let action = params.action.as_deref().unwrap_or_default();
    let action = action.strip_prefix("org.matrix.").unwrap_or(action);
    let browser = match action {
        "account_deactivate" | "cross_signing_reset" => visit.freshly_signed_in(),
        _ => visit.signed_in(),
    };
    let browser = match browser {
        Ok(browser) => browser,
        Err(to_login) => return Ok(*to_login),
    };
    let token = form_token_field(&visit.visitor.form_token());
    let device = params.device_id.as_deref().map(OwnedDeviceId::from);
    let page = match (action, device) {
        ("profile", _) => profile(&core, &browser, &token)?,
        ("devices_list" | "sessions_list", _) => devices(&core, &browser)?,
        ("device_view" | "session_view", Some(id)) => device_page(&core, &browser, &id, &token, false)?,
        ("device_delete" | "session_end", Some(id)) => device_page(&core, &browser, &id, &token, true)?,
        ("device_view" | "session_view" | "device_delete" | "session_end", None) => devices(&core, &browser)?,
        ("account_deactivate", _) => deactivation(&browser, &token),
        ("cross_signing_reset", _) => identity(&token),
        _ => overview(&core, &browser, &token, params.done.as_deref())?,
    };
    Ok(visit.answer(page))
}

/// The display name is another.
pub(super) async fn set_profile(
    State(core): State<Arc<Core>>,
    Posted { visit, form }: Posted<Profile>,
) -> Result<Response, PageError> {
    let browser = match visit.signed_in() {
        Ok(browser) => browser,
        Err(to_login) => return Ok(*to_login),
    };
    if core.account(&browser.user_id)?.is_some_and(|account| account.suspended) {
        return Err(Error::UserSuspended.into());
    }
    let name = form.display_name.trim();
    let value = (!name.is_empty()).then(|| name.into());
    core.set_profile_field(&browser.user_id, "displayname", value).await?;
    go_to("/account/?done=profile")
}

/// The session is gone with its device.
pub(super) async fn end_device(
    State(core): State<Arc<Core>>,
    Posted { visit, form }: Posted<EndDevice>,
) -> Result<Response, PageError> {
    let browser = match visit.signed_in() {
        Ok(browser) => browser,
        Err(to_login) => return Ok(*to_login),
    };
    core.delete_devices(&browser.user_id, &[form.device_id]).await?;
    go_to("/account/?done=device")
}

/// Clients may replace the user's identity for some minutes.
pub(super) async fn allow_identity_reset(
    State(core): State<Arc<Core>>,
    Posted { visit, .. }: Posted<Nothing>,
) -> Result<Response, PageError> {
    let browser = match visit.freshly_signed_in() {
        Ok(browser) => browser,
        Err(_) => return go_to("/account/?action=org.matrix.cross_signing_reset"),
    };
    core.allow_identity_reset(&browser.user_id).await?;
    let body = "<p>Your app may now reset your digital identity. Go back to it within the next ten minutes.</p>";
    Ok(visit.answer(Page::new("Go back to your app", body)))
}

/// The account is closed for good.
pub(super) async fn deactivate(
    State(core): State<Arc<Core>>,
    Posted { visit, form }: Posted<Deactivate>,
) -> Result<Response, PageError> {
    let browser = match visit.freshly_signed_in() {
        Ok(browser) => browser,
        Err(_) => return go_to("/account/?action=org.matrix.account_deactivate"),
    };
    if form.user_id.trim() != browser.user_id.as_str() {
        let page = deactivation(&browser, &form_token_field(&visit.visitor.form_token()));
        return Ok(visit.answer(page.refused(&Error::invalid("this is not your user id; nothing was changed"))));
    }
    core.deactivate(&browser.user_id, form.erase.is_some()).await?;
    let visitor = core.sign_out_browser(&visit.visitor).await?;
    Ok(visit.answer_as(&visitor, Page::new("Account closed", "<p>Your account is closed for good.</p>")))
}

fn overview(core: &Arc<Core>, browser: &Browser, token: &str, done: Option<&str>) -> Result<Page, Error> {
    let note = match done {
        Some("profile") => "<p class=\"note\" role=\"status\">Your profile was changed.</p>",
        Some("device") => "<p class=\"note\" role=\"status\">The session was ended.</p>",
        _ => "",
    };
    let name = core.display_name(&browser.user_id)?.unwrap_or_default();
    let body = format!(
        "{note}<dl><dt>User</dt><dd>{user}</dd><dt>Display name</dt><dd>{name}</dd></dl>\
         <ul class=\"plain\">\
         <li><a href=\"/account/?action=org.matrix.profile\">Change your display name</a></li>\
         <li><a href=\"/account/?action=org.matrix.devices_list\">Your sessions</a></li>\
         <li><a href=\"/account/link\">Sign in on another device</a></li>\
         <li><a href=\"/account/?action=org.matrix.cross_signing_reset\">Reset your digital identity</a></li>\
         <li><a href=\"/account/?action=org.matrix.account_deactivate\">Close your account</a></li></ul>\
         <form method=\"post\" action=\"/account/logout\">{token}\
         <input type=\"hidden\" name=\"next\" value=\"/account/\">\
         <button type=\"submit\" class=\"quiet\">Sign out of this page</button></form>",
        user = esc(browser.user_id.as_str()),
        name = esc(&name),
    );
    Ok(Page::new("Your account", body))
}

fn profile(core: &Arc<Core>, browser: &Browser, token: &str) -> Result<Page, Error> {
    let name = core.display_name(&browser.user_id)?.unwrap_or_default();
    let body = format!(
        "<form method=\"post\" action=\"/account/profile\">{token}\
         <label for=\"display_name\">Display name</label>\
         <input id=\"display_name\" name=\"display_name\" value=\"{}\" maxlength=\"256\" autocomplete=\"name\">\
         <button type=\"submit\">Save</button></form>{BACK}",
        esc(&name),
    );
    Ok(Page::new("Your profile", body))
}

const BACK: &str = "<p><a href=\"/account/\">Back to your account</a></p>";

fn devices(core: &Arc<Core>, browser: &Browser) -> Result<Page, Error> {
    let mut devices = core.devices(&browser.user_id)?;
    devices.sort_by_key(|device| std::cmp::Reverse(device.last_seen_ts));
    let items: String = devices
        .iter()
        .map(|device| {
            format!(
                "<li><a href=\"/account/?action=org.matrix.device_view&amp;device_id={id}\">{name}</a><br>{seen}</li>",
                id = encoded(device.device_id.as_str()),
                name = esc(device.display_name.as_deref().unwrap_or(device.device_id.as_str())),
                seen = esc(&seen(core, device)),
            )
        })
        .collect();
    Ok(Page::new("Your sessions", format!("<ul class=\"plain\">{items}</ul>{BACK}")))
}

fn device_page(
    core: &Arc<Core>,
    browser: &Browser,
    id: &OwnedDeviceId,
    token: &str,
    ending: bool,
) -> Result<Page, Error> {
    let device = core.device(&browser.user_id, id)?;
    let warning = if ending {
        "<p class=\"error\">Messages that only this device can read will be lost if they are in no backup.</p>"
    } else {
        ""
    };
    let mut facts = BTreeMap::from([("Device", device.device_id.to_string()), ("Last seen", seen(core, &device))]);
    if let Some(name) = &device.display_name {
        facts.insert("Name", name.clone());
    }
    let facts: String = facts.iter().map(|(what, fact)| format!("<dt>{what}</dt><dd>{}</dd>", esc(fact))).collect();
    let body = format!(
        "<dl>{facts}</dl>{warning}<form method=\"post\" action=\"/account/device\">{token}\
         <input type=\"hidden\" name=\"device_id\" value=\"{id}\">\
         <button type=\"submit\" class=\"danger\">End this session</button></form>\
         <p><a href=\"/account/?action=org.matrix.devices_list\">All sessions</a></p>",
        id = esc(id.as_str()),
    );
    Ok(Page::new(if ending { "End this session?" } else { "Session" }, body))
}

fn seen(core: &Arc<Core>, device: &DeviceView) -> String {
    let Some(at_ms) = device.last_seen_ts else { return "not used yet".to_owned() };
    let minutes = core.now_ms().saturating_sub(at_ms) / 60_000;
    let ago = match minutes {
        0 => "just now".to_owned(),
        1..=59 => format!("{minutes} min ago"),
        60..=2_879 => format!("{} h ago", minutes / 60),
        _ => format!("{} days ago", minutes / 1_440),
    };
    match &device.last_seen_ip {
        Some(address) => format!("{ago}, from {address}"),
        None => ago,
    }
}

fn deactivation(browser: &Browser, token: &str) -> Page {
    let user = esc(browser.user_id.as_str());
    let body = format!(
        "<p class=\"error\">This cannot be undone. You will leave all rooms, all your sessions end, and nobody can use \
         the name again.</p><form method=\"post\" action=\"/account/deactivate\">{token}\
         <label for=\"user_id\">Type <code>{user}</code> to confirm</label>\
         <input id=\"user_id\" name=\"user_id\" autocomplete=\"off\" autocapitalize=\"none\" required>\
         <label class=\"check\"><input type=\"checkbox\" name=\"erase\" value=\"yes\"> \
         Also hide my messages from people who join later</label>\
         <button type=\"submit\" class=\"danger\">Close my account</button></form>{BACK}",
    );
    Page::new("Close your account", body)
}

fn identity(token: &str) -> Page {
    let body = format!(
        "<p>Do this only if you have lost every device on which you are signed in, and your recovery key.</p>\
         <p class=\"error\">Everyone who has verified you must do so again. If you did not just ask your app to reset \
         your identity, close this page: somebody else may have access to your account.</p>\
         <form method=\"post\" action=\"/account/identity\">{token}\
         <button type=\"submit\" class=\"danger\">Allow the reset</button></form>{BACK}",
    );
    Page::new("Reset your digital identity?", body)
}
