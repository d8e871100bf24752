//! Lays the functions that a gateway runs side by side in the released binary, and those of an operator.
//!
//! The program is large, and what an idle process has touched lies scattered over all of it, each piece with the 64 KiB
//! around it that the kernel maps: that was more than half of its memory. `build/gateway.ld` puts those functions at the
//! front, `build/operator.ld` what an operator runs beside them; `make layout` writes both anew. A name that is not
//! found changes nothing but the place of that function.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let scripts = ["build/gateway.ld", "build/operator.ld"];
    for script in scripts {
        println!("cargo::rerun-if-changed={script}");
    }
    println!("cargo::rerun-if-env-changed=MCP_FLEET_LAYOUT");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    // `off` is for linkers that read no scripts, as mold.
    if !is("PROFILE", "release") || !is("CARGO_CFG_TARGET_OS", "linux") || is("MCP_FLEET_LAYOUT", "off") {
        return;
    }
    let Ok(root) = env::var("CARGO_MANIFEST_DIR") else { return };
    for script in scripts {
        println!("cargo::rustc-link-arg-bin=mcp-fleet=-Wl,-T,{root}/{script}");
    }
}
