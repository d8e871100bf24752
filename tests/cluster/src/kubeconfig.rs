//! Kubeconfig files. Written as JSON, which every reader of YAML accepts.

use std::path::Path;

use serde_json::json;

/// A kubeconfig with one cluster, one bearer token and one context, `test`.
pub(crate) fn render(server: &str, authority: &Path, token: &str) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": authority}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_context_leads_to_server_and_token() {
        let config: serde_json::Value =
            serde_json::from_str(&render("https://a:1", Path::new("/ca"), "secret")).expect("JSON");
        assert_eq!(config["current-context"], config["contexts"][0]["name"]);
        assert_eq!(config["contexts"][0]["context"]["cluster"], config["clusters"][0]["name"]);
        assert_eq!(config["clusters"][0]["cluster"]["certificate-authority"], "/ca");
        assert_eq!(config["users"][0]["user"]["token"], "secret");
    }
}
