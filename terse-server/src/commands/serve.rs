//! `terse serve`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use terse_http::Surfaces;

use super::{in_runtime, say};
use crate::application::Application;
use crate::cli::RoleName;
use crate::clicks;
use crate::config::{AuthMode, Config, keys};
use crate::exit::StartError;
use crate::telemetry;

/// Serves until a signal.
pub(super) fn serve(mut config: Config, roles: &[RoleName], program: &str) -> Result<(), StartError> {
    config.http.surfaces = surfaces(roles);
    config.analytics = serves(roles, RoleName::Analytics);
    clicks::refuse_lone_stats(&config)?;
    telemetry::start(&config.log.filter, config.log.format)?;
    if let Err(error) = use_small_pages() {
        tracing::debug!(%error, "memory may come in pages of 2 MiB");
    }
    in_runtime(async {
        let about = config.clone();
        let application = Application::build(config).await?;
        for warning in &about.warnings {
            tracing::warn!("{warning}");
        }
        let address = application.address();
        // Nobody may be reading; that is no reason not to serve.
        if let Err(error) = say(&greeting(&about, address, program)) {
            tracing::debug!(%error, "the start-up message was not printed");
        }
        tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "serving");
        application.run_until_stopped().await
    })
}

/// Has the kernel give this process memory by 4 KiB from now on. Each of a dozen threads allocates in a place of its own,
/// and 2 MiB for each of these were 18 MB that nobody used.
pub(super) fn use_small_pages() -> io::Result<()> {
    Ok(rustix::thread::disable_transparent_huge_pages(true)?)
}

fn surfaces(roles: &[RoleName]) -> Surfaces {
    Surfaces { redirect: serves(roles, RoleName::Redirect), api: serves(roles, RoleName::Api) }
}

fn serves(roles: &[RoleName], role: RoleName) -> bool {
    roles.contains(&RoleName::All) || roles.contains(&role)
}

/// Where it listens, how it is protected, and one line to try.
fn greeting(config: &Config, address: SocketAddr, program: &str) -> String {
    let base = format!("http://{}", reachable(address));
    let post = "-H 'Content-Type: application/json' -d '{\"url\": \"https://example.com/\"}'";
    let place = "on loopback: every program on this machine is an admin";
    let (protection, attempt) = match config.http.auth {
        AuthMode::Open => {
            let whom = if address.ip().is_loopback() { place } else { "to everybody who reaches it, as an admin" };
            (
                format!("Access is open {whom} (TERSE_AUTH=keys asks for keys)"),
                format!("curl -sS {base}/api/v1/links {post}"),
            )
        }
        AuthMode::Keys => {
            let make = format!("{} --name first --role admin", keys_create(config, program));
            (
                format!("Access needs a key. Make the first one: {make}"),
                // The new key counts within a second.
                format!(
                    "KEY=$({make}) && sleep 1 && curl -sS {base}/api/v1/links -H \"Authorization: Bearer $KEY\" {post}"
                ),
            )
        }
    };
    let attempt = if config.http.surfaces.api { attempt } else { format!("curl -sS {base}/health") };
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "terse {version} listens on http://{address}, data in {}\n{protection}\nTry: {attempt}",
        config.data_dir.display()
    )
}

/// The command that makes a key on the same store as this server's.
fn keys_create(config: &Config, program: &str) -> String {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut command = format!("{} keys create", quoted(program));
    if let Some(file) = &config.file {
        command.push_str(&format!(" --config {}", quoted(&absolute(file).to_string_lossy())));
    }
    command.push_str(&format!(" --data-dir {}", quoted(&absolute(&config.data_dir).to_string_lossy())));
    // Whoever runs it need not have this process's variables. Without the password it fails; it makes no key elsewhere.
    if let Some(store) = config.given(&keys::STORE) {
        command.push_str(&format!(" --store {}", quoted(store)));
    }
    command
}

/// `text` as one word of a shell.
fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'_' | b'+' | b':');
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// An address that a client on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::{AUTH, DATA_DIR, LISTEN, STORE};
    use crate::config::raw::Inputs;

    fn config(listen: &str, auth: &str) -> Config {
        let flags = vec![(&LISTEN, listen.to_owned()), (&AUTH, auth.to_owned()), (&DATA_DIR, "/tmp/a b".to_owned())];
        Config::load(Inputs { flags, working_dir: "/".into(), ..Inputs::default() }).unwrap()
    }

    fn greets(listen: &str, auth: &str) -> String {
        greeting(&config(listen, auth), listen.parse().unwrap(), "./terse")
    }

    #[test]
    fn the_greeting_tells_address_protection_and_a_line_to_try() {
        let open = greets("127.0.0.1:8080", "open");
        assert!(open.contains("listens on http://127.0.0.1:8080") && open.contains("open on loopback"), "{open}");
        assert!(open.contains("Try: curl -sS http://127.0.0.1:8080/api/v1/links -H"), "{open}");
        let keys = greets("0.0.0.0:80", "keys");
        assert!(keys.contains("Access needs a key") && keys.contains("http://127.0.0.1:80/api"), "{keys}");
        assert!(keys.contains("KEY=$(./terse keys create --data-dir '/tmp/a b' --name first --role admin)"), "{keys}");
        assert!(greets("[::]:80", "open").contains("to everybody"));
    }

    #[test]
    fn the_command_that_makes_a_key_reaches_the_store_of_this_server() {
        let made = |flags: &[(&'static keys::Key, &str)], environment: &[(&str, &str)]| {
            let flags = flags.iter().map(|(key, text)| (*key, (*text).to_owned())).collect();
            let environment = environment.iter().map(|(name, text)| (name.into(), text.into())).collect();
            let inputs = Inputs { flags, environment, working_dir: "/".into(), ..Inputs::default() };
            keys_create(&Config::load(inputs).unwrap(), "terse")
        };
        assert!(!made(&[], &[]).contains("--store"));
        assert!(made(&[(&STORE, "cql://h/links")], &[]).ends_with(" --store cql://h/links"));
        let secret = made(&[], &[("TERSE_STORE", "cql://me:s3cret@h,i/links")]);
        assert!(secret.ends_with(" --store 'cql://***@h,i/links'") && !secret.contains("s3cret"), "{secret}");
    }

    #[test]
    fn memory_comes_in_small_pages() {
        use_small_pages().unwrap();
        assert!(rustix::thread::transparent_huge_pages_are_disabled().unwrap());
    }

    #[test]
    fn a_server_without_api_suggests_its_health() {
        let mut config = config("127.0.0.1:80", "open");
        config.http.surfaces = surfaces(&[RoleName::Redirect]);
        assert!(greeting(&config, config.http.listen, "terse").ends_with("Try: curl -sS http://127.0.0.1:80/health"));
    }

    #[test]
    fn roles_add_up() {
        let served = |roles: &[RoleName]| (surfaces(roles).redirect, surfaces(roles).api);
        assert_eq!(served(&[RoleName::All]), (true, true));
        assert_eq!(served(&[RoleName::Redirect]), (true, false));
        assert_eq!(served(&[RoleName::Redirect, RoleName::Api]), (true, true));
        assert_eq!(served(&[RoleName::Analytics]), (false, false));
    }

    #[test]
    fn a_path_is_one_word_for_the_shell() {
        assert_eq!(quoted("/a/b-c.d"), "/a/b-c.d");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
