//! Logging in through libssh2: agent, key files, password, keyboard-interactive, in that order.

use std::cell::Cell;
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ssh2::{KeyboardInteractivePrompt, Session};

use super::known_hosts::key_type;
use super::{Endpoint, Prompt, Secret, TransportError};

/// Keys of an agent that are offered at most: servers count each as an attempt and close after some (OpenSSH: 6).
const MAX_AGENT_KEYS: usize = 5;
/// With more keys than this the server is asked first which methods it offers: after a refused key that question counts as an
/// attempt, too.
const MAX_UNASKED_KEYS: usize = 3;

/// What was tried, for the error message.
#[derive(Default)]
struct Tried {
    names: Vec<String>,
    ed25519: bool,
    password: bool,
    /// Keys of the agent that were not offered.
    left_out: usize,
}

impl Tried {
    fn key(&mut self, name: String, is_ed25519: bool) {
        self.names.push(name);
        self.ed25519 |= is_ed25519;
    }
}

/// One way to log in; returns whether it succeeded.
type Attempt = fn(&Session, &Endpoint, &dyn Prompt, &mut Tried) -> Result<bool, TransportError>;

/// Whether the server proved its identity. Without proof it gets no password: a key gives nothing away, a password does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    Host,
    None,
}

/// Logs in and returns by which means.
pub(super) fn login(
    session: &Session,
    endpoint: &Endpoint,
    prompt: &dyn Prompt,
    trust: Trust,
) -> Result<String, TransportError> {
    let mut tried = Tried::default();
    let asked_first = if tries_few_keys(session, endpoint) { None } else { Some(methods(session, endpoint)) };
    if session.authenticated() {
        return Ok("nothing: the server asked for no proof".into());
    }
    let accepted = |tried: &Tried| {
        let before = tried.names.split_last().map_or(0, |(_, before)| before.len());
        let last = tried.names.last().cloned().unwrap_or_default();
        if before == 0 { last } else { format!("{last} (after {before} that were refused)") }
    };
    if asked_first.as_deref().is_none_or(|methods| offers(methods, "publickey")) {
        let in_order: [Attempt; 2] =
            if endpoint.explicit.identity_files.is_empty() { [agent, files] } else { [files, agent] };
        for attempt in in_order {
            if attempt(session, endpoint, prompt, &mut tried)? {
                return Ok(accepted(&tried));
            }
        }
    }
    let methods = asked_first.unwrap_or_else(|| methods(session, endpoint));
    if session.authenticated() {
        return Ok("nothing: the server asked for no proof".into());
    }
    if trust == Trust::Host
        && (offers(&methods, "password") || offers(&methods, "keyboard-interactive"))
        && password(session, endpoint, prompt, &methods, &mut tried)
    {
        return Ok(accepted(&tried));
    }
    Err(refused(endpoint, tried))
}

/// The methods that the server offers, separated by commas. Asking costs a round trip: it is the method "none", which a server
/// may accept.
fn methods(session: &Session, endpoint: &Endpoint) -> String {
    session.auth_methods(&endpoint.user).unwrap_or_default().to_owned()
}

/// Whether the server offers the method. One that names no method is tried with each.
fn offers(methods: &str, method: &str) -> bool {
    methods.is_empty() || methods.split(',').any(|m| m == method)
}

/// Whether there are keys, and so few that the server also takes the question for its methods and a password after them. Then
/// the first key is offered at once.
fn tries_few_keys(session: &Session, endpoint: &Endpoint) -> bool {
    let files = endpoint.identity_files.iter().filter(|file| file.exists()).count();
    let in_agent = || -> Option<usize> {
        let mut agent = session.agent().ok()?;
        agent.set_identity_path(endpoint.agent.as_ref()?).and_then(|()| agent.connect()).ok()?;
        agent.list_identities().and_then(|()| agent.identities()).map(|keys| keys.len()).ok()
    };
    (1..=MAX_UNASKED_KEYS).contains(&(files + in_agent().unwrap_or_default()))
}

fn refused(endpoint: &Endpoint, tried: Tried) -> TransportError {
    let (user, host) = (endpoint.user.clone(), endpoint.host.clone());
    if tried.password && tried.names.len() == 1 && !endpoint.is_pantheon() {
        return TransportError::WrongPassword { user, host };
    }
    let hint = hint(endpoint.is_pantheon(), &tried);
    let more = match tried.left_out {
        0 => String::new(),
        n => format!(
            "; the agent has {n} more key(s) that were not offered, since servers end the connection after some: name \
             the right one with -o IdentityFile="
        ),
    };
    let tried = if tried.names.is_empty() { "nothing".into() } else { tried.names.join(", ") };
    TransportError::AuthRefused { user, host, tried, hint: format!("{hint}{more}") }
}

/// What to do about a login that was refused. The platform takes keys only, and not of every type.
fn hint(pantheon: bool, tried: &Tried) -> &'static str {
    match (pantheon, tried.ed25519) {
        (true, true) => {
            "; Pantheon does not take ed25519 keys: add an RSA key (ssh-keygen -t rsa -b 4096) to your account"
        }
        (true, false) if tried.password => {
            "; Pantheon has taken no passwords since 30 April 2024: add an RSA or ECDSA (256 bits) key to your account"
        }
        (true, false) if tried.names.is_empty() => {
            "; no key to try: use an RSA or ECDSA (256 bits) key that is in your account, or ssh-agent"
        }
        (true, false) => "; check that the public key is in the account (RSA or ECDSA with 256 bits; no passwords)",
        (false, true) => "; one was an ed25519 key, which some servers (Pantheon's) do not take: try an RSA key",
        (false, false) if tried.names.is_empty() => {
            "; no key and no password to try: use an SSH key, ssh-agent, or a password"
        }
        (false, false) => "; check that the public key is in the account, or use a password",
    }
}

/// Keys of the agent, those that a Pantheon server cannot take last.
fn agent(session: &Session, endpoint: &Endpoint, _: &dyn Prompt, tried: &mut Tried) -> Result<bool, TransportError> {
    let Some(socket) = &endpoint.agent else { return Ok(false) };
    let Ok(mut agent) = session.agent() else { return Ok(false) };
    if agent.set_identity_path(socket).is_err() || agent.connect().is_err() || agent.list_identities().is_err() {
        return Ok(false);
    }
    let mut keys = agent.identities().unwrap_or_default();
    if endpoint.identities_only {
        let wanted: Vec<Vec<u8>> = endpoint.identity_files.iter().filter_map(|f| public_half(f)).collect();
        keys.retain(|key| wanted.iter().any(|blob| blob == key.blob()));
    }
    let is_ed25519 = |blob: &[u8]| key_type(blob).is_some_and(|kind| kind.contains("ed25519"));
    // Those that the settings name come first, as with the ssh program.
    let named: Vec<Vec<u8>> = endpoint.identity_files.iter().filter_map(|f| public_half(f)).collect();
    keys.sort_by_key(|key| (!named.iter().any(|blob| blob == key.blob()), is_implausible(endpoint, key.blob())));
    tried.left_out = keys.len().saturating_sub(MAX_AGENT_KEYS);
    for key in keys.iter().take(MAX_AGENT_KEYS) {
        tried.key(format!("agent key '{}'", key.comment()), is_ed25519(key.blob()));
        if agent.userauth(&endpoint.user, key).is_ok() && session.authenticated() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The platform takes RSA, and ECDSA with 256 bits; elsewhere only ed25519 comes last, which old servers do not take.
fn is_implausible(endpoint: &Endpoint, key: &[u8]) -> bool {
    let kind = key_type(key).unwrap_or_default();
    if endpoint.is_pantheon() {
        return !matches!(kind, "ssh-rsa" | "ecdsa-sha2-nistp256");
    }
    kind.contains("ed25519")
}

/// The public key beside a private one.
fn public_half(file: &Path) -> Option<Vec<u8>> {
    let mut name = file.as_os_str().to_owned();
    name.push(".pub");
    let text = fs::read_to_string(Path::new(&name)).ok()?;
    STANDARD.decode(text.split_whitespace().nth(1)?).ok()
}

fn files(
    session: &Session,
    endpoint: &Endpoint,
    prompt: &dyn Prompt,
    tried: &mut Tried,
) -> Result<bool, TransportError> {
    let explicit = !endpoint.explicit.identity_files.is_empty();
    for file in &endpoint.identity_files {
        let text = match fs::read(file) {
            Ok(text) => text,
            Err(error) if explicit => {
                let detail = error.to_string();
                return Err(TransportError::BadKey { file: file.clone(), detail, source: Some(error.into()) });
            }
            Err(_) => continue,
        };
        let mut passphrase = None;
        if is_encrypted(&text) {
            passphrase = prompt.secret(&format!("Passphrase for {}", file.display()));
            if passphrase.is_none() {
                tried.key(format!("{} (needs a passphrase: use ssh-agent)", file.display()), false);
                continue;
            }
        }
        let secret = passphrase.as_ref().map(Secret::expose);
        let kind = public_half(file).is_some_and(|blob| key_type(&blob).is_some_and(|k| k.contains("ed25519")));
        tried.key(file.display().to_string(), kind || file.to_string_lossy().contains("ed25519"));
        match session.userauth_pubkey_file(&endpoint.user, None, file, secret) {
            Ok(()) if session.authenticated() => return Ok(true),
            Ok(()) => {}
            Err(error) => log::debug!("{}: {error}", file.display()),
        }
    }
    Ok(false)
}

/// PEM has a header for it; OpenSSH's own format names its cipher first.
fn is_encrypted(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    if text.contains("ENCRYPTED") {
        return true;
    }
    let Some(body) = text.split("-----BEGIN OPENSSH PRIVATE KEY-----").nth(1) else { return false };
    let body: String = body.split("-----").next().unwrap_or_default().split_whitespace().collect();
    let Ok(bytes) = STANDARD.decode(body) else { return false };
    // "openssh-key-v1\0", then the cipher as a string.
    bytes.get(15..).and_then(key_type).is_some_and(|cipher| cipher != "none")
}

/// Answers every hidden question with the password, as `ssh` users expect of a server that asks that way.
struct Answers<'a> {
    password: &'a Secret,
    asked: Cell<u32>,
}

impl KeyboardInteractivePrompt for Answers<'_> {
    fn prompt<'a>(&mut self, _: &str, _: &str, prompts: &[ssh2::Prompt<'a>]) -> Vec<String> {
        self.asked.set(self.asked.get() + 1);
        let answer = |p: &ssh2::Prompt<'a>| if p.echo { String::new() } else { self.password.expose().to_owned() };
        prompts.iter().map(answer).collect()
    }
}

fn password(session: &Session, endpoint: &Endpoint, prompt: &dyn Prompt, methods: &str, tried: &mut Tried) -> bool {
    let question = || prompt.secret(&format!("Password for {}@{}", endpoint.user, endpoint.host));
    let Some(password) = endpoint.password.clone().or_else(question) else { return false };
    tried.names.push("password".into());
    tried.password = true;
    if offers(methods, "password") && session.userauth_password(&endpoint.user, password.expose()).is_ok() {
        return session.authenticated();
    }
    let mut answers = Answers { password: &password, asked: Cell::new(0) };
    offers(methods, "keyboard-interactive")
        && session.userauth_keyboard_interactive(&endpoint.user, &mut answers).is_ok()
        && session.authenticated()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_the_platform_cannot_take_come_last_and_are_explained() {
        let given = super::super::SshOverrides { ssh_command: Some("/nonexistent".into()), ..Default::default() };
        let at = |host: &str| Endpoint::resolve(host, None, Some("u"), &given).expect("valid");
        let key = |kind: &str| [&(kind.len() as u32).to_be_bytes(), kind.as_bytes()].concat();
        let (pantheon, other) = (at("appserver.dev.x.drush.in"), at("example.org"));
        for (kind, there, elsewhere) in [
            ("ssh-rsa", false, false),
            ("ecdsa-sha2-nistp256", false, false),
            ("ecdsa-sha2-nistp521", true, false),
            ("ssh-ed25519", true, true),
            ("sk-ssh-ed25519@openssh.com", true, true),
        ] {
            assert_eq!(is_implausible(&pantheon, &key(kind)), there, "{kind}");
            assert_eq!(is_implausible(&other, &key(kind)), elsewhere, "{kind}");
        }
        let tried = Tried { names: vec!["agent key 'a'".into()], ed25519: true, left_out: 2, ..Tried::default() };
        let said = refused(&pantheon, tried).to_string();
        assert!(said.contains("Pantheon does not take ed25519") && said.contains("2 more key(s)"), "{said}");
    }

    #[test]
    fn no_password_is_recommended_for_the_platform() {
        let hints = |pantheon: bool| {
            let named = |password: bool| Tried { names: vec!["x".into()], password, ..Tried::default() };
            [Tried::default(), named(false), named(true)].map(|tried| hint(pantheon, &tried))
        };
        assert!(hints(true).iter().all(|text| !text.contains("a password") && text.contains("RSA or ECDSA")));
        assert!(hints(true)[2].contains("no passwords since 30 April 2024"));
        assert!(hints(false).iter().all(|text| text.contains("a password") && !text.contains("Pantheon")));
    }

    #[test]
    fn encrypted_keys_are_recognised() {
        let openssh = |cipher: &str| {
            let mut bytes = b"openssh-key-v1\0".to_vec();
            bytes.extend((cipher.len() as u32).to_be_bytes());
            bytes.extend(cipher.as_bytes());
            bytes.extend([0; 16]);
            format!(
                "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n",
                STANDARD.encode(bytes)
            )
        };
        assert!(is_encrypted(openssh("aes256-ctr").as_bytes()));
        assert!(!is_encrypted(openssh("none").as_bytes()));
        assert!(is_encrypted(b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"));
        assert!(!is_encrypted(b"nonsense"));
    }
}
