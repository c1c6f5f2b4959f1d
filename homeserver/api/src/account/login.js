"use strict";
// SPEC: v1.19 Client-Server API, "Login fallback": parameters of the page that are no credentials go on to /login.
const form = document.getElementById("login");
const message = document.getElementById("message");
const said = new URLSearchParams(window.location.search);

form.addEventListener("submit", async (event) => {
    event.preventDefault();
    message.textContent = "";
    const body = {};
    for (const name of ["device_id", "initial_device_display_name"]) {
        if (said.has(name)) body[name] = said.get(name);
    }
    if (said.get("refresh_token") === "true") body.refresh_token = true;
    body.type = "m.login.password";
    body.identifier = { type: "m.id.user", user: document.getElementById("username").value };
    body.password = document.getElementById("password").value;
    try {
        const response = await fetch("/_matrix/client/v3/login", {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify(body),
        });
        const answer = await response.json();
        if (!response.ok) {
            message.textContent = answer.error || "Signing in failed.";
        } else if (window.matrixLogin && window.matrixLogin.onLogin) {
            window.matrixLogin.onLogin(answer);
        } else {
            message.textContent = "Signed in, but the app that shows this page does not listen.";
        }
    } catch {
        message.textContent = "The server could not be reached.";
    }
});
