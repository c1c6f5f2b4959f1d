"use strict";
// SPEC: v1.19 Client-Server API, "Fallback".
if (window.onAuthDone) {
    window.onAuthDone();
} else if (window.opener && window.opener.postMessage) {
    window.opener.postMessage("authDone", "*");
}
