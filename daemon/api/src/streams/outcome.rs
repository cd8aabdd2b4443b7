//! How a command ended, as clients want to hear it.

use crate::runtime::ExecExit;
use serde_json::{Value, json};

/// The Status that ends a session.
pub(super) fn status(exit: Result<ExecExit, String>) -> Value {
    match exit {
        Ok(ExecExit { code: 0, message }) if message.is_empty() => json!({"metadata": {}, "status": "Success"}),
        Ok(ExecExit { code, message }) if message.is_empty() => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: command terminated with exit code {code}"),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Ok(ExecExit { message, .. }) | Err(message) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("Internal error occurred: error executing command in container: {message}"),
            "reason": "InternalError",
            "details": {"causes": [{"message": format!("error executing command in container: {message}")}]},
            "code": 500,
        }),
    }
}

/// The same for protocols that know no Status: words for a failure, nothing for success.
pub(super) fn words(exit: Result<ExecExit, String>) -> Option<String> {
    let status = status(exit);
    (status["status"] != "Success").then(|| status["message"].as_str().unwrap_or_default().to_owned())
}
