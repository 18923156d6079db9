//! The SSH server: logins, the SFTP subsystem, and the programs that a client may run.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::Algorithm;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Response, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, MethodKind, MethodSet, Preferred};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::sftp_session::Sftp;
use super::state::Shared;
use super::{codeserver, exec};

/// Bytes between our end of the link and the SSH server.
const PIPE_BYTES: usize = 1024 * 1024;
/// The platform's own limit on silence.
const IDLE_LIMIT: Duration = Duration::from_secs(600);

fn server_config(shared: &Shared) -> io::Result<Config> {
    let key = russh::keys::load_secret_key(shared.host_key(), None).map_err(io::Error::other)?;
    let mut preferred = Preferred::default();
    if shared.quirk_is("host-key", "rsa-sha1") {
        preferred.key = Cow::Owned(vec![Algorithm::Rsa { hash: None }]);
    }
    let methods = match shared.quirk_is("auth", "keyboard-interactive") {
        true => MethodSet::from([MethodKind::KeyboardInteractive].as_slice()),
        false => Config::default().methods,
    };
    Ok(Config {
        methods,
        keys: vec![key],
        preferred,
        // Short, because tests should not wait, and no attacker guesses passwords here.
        auth_rejection_time: Duration::from_millis(10),
        auth_rejection_time_initial: Some(Duration::ZERO),
        inactivity_timeout: Some(IDLE_LIMIT),
        window_size: 16 * 1024 * 1024,
        // The session's loop waits where this is full, and takes no answer meanwhile: an SFTP task that waits to hand over
        // its answers (10 fit) then never reads again. Without a bound the loop never waits for a task.
        channel_buffer_size: Semaphore::MAX_PERMITS,
        nodelay: true,
        ..Config::default()
    })
}

pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = shared.clone();
        // Made for each connection, because a migrated container has another key.
        let config = match server_config(&shared) {
            Ok(config) => Arc::new(config),
            Err(error) => {
                log::error!("the simulated SSH server: {error}");
                continue;
            }
        };
        if shared.sleeps("closed") {
            continue;
        }
        let _ = client.set_nodelay(true);
        tokio::spawn(async move {
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            let login = Login {
                shared: shared.clone(),
                environment: None,
                code_server: false,
                runs_program: false,
                channels: HashMap::new(),
            };
            let session = tokio::spawn(async move {
                match russh::server::run_stream(config, far, login).await {
                    Ok(session) => session.await,
                    Err(error) => Err(error),
                }
            });
            shared.link.join(client, near).await;
            if let Ok(Err(error)) = session.await {
                log::debug!("a simulated SSH session ended: {error}");
            }
        });
    }
}

struct Login {
    shared: Arc<Shared>,
    environment: Option<String>,
    /// Logged in to the code server, which speaks git and nothing else.
    code_server: bool,
    /// A program runs instead of SFTP.
    runs_program: bool,
    channels: HashMap<ChannelId, Channel<Msg>>,
}

impl Login {
    /// The environment of a user: `dev.UUID`, or `appserver.dev.UUID` as Terminus names it where one host serves all.
    fn environment_of(&self, user: &str) -> Option<String> {
        let user = user.strip_prefix("appserver.").unwrap_or(user);
        let (env, id) = user.split_once('.')?;
        let known = id == self.shared.site_id && self.shared.lock().environments.contains_key(env);
        known.then(|| env.to_owned())
    }

    fn decide(&mut self, user: &str, proved: bool) -> Auth {
        if proved && user == format!("codeserver.dev.{}", self.shared.site_id) {
            self.code_server = true;
            return Auth::Accept;
        }
        match self.environment_of(user).filter(|_| proved) {
            Some(env) => {
                self.environment = Some(env);
                Auth::Accept
            }
            None => Auth::reject(),
        }
    }
}

impl Handler for Login {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        let right = password == self.shared.password;
        Ok(self.decide(user, right))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let Some(mut answers) = response else {
            let prompts = Cow::Owned(vec![(Cow::Borrowed("Password: "), false)]);
            return Ok(Auth::Partial { name: "".into(), instructions: "".into(), prompts });
        };
        let right = answers.next().is_some_and(|answer| answer == self.shared.password.as_bytes());
        Ok(self.decide(user, right))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let known = {
            let state = self.shared.lock();
            let taken = key.public_key.algorithm() != Algorithm::Ed25519 || state.quirks.is("ed25519-keys", "accept");
            taken && state.authorized.iter().any(|known| known.key_data() == key.public_key.key_data())
        };
        Ok(self.decide(user, known))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        // Git and rsync close their side when they have sent everything, and wait for the rest of the answer.
        if self.runs_program { Ok(()) } else { session.close(channel) }
    }

    /// `git-upload-pack '~/repository.git'` and its counterpart: the code server. On an environment: rsync.
    async fn exec_request(&mut self, id: ChannelId, data: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        let line = String::from_utf8_lossy(data).into_owned();
        if let Some(env) = self.environment.clone()
            && let Some(words) = exec::rsync_words(&line).filter(|_| self.shared.quirk_is("rsync", "allow"))
            && let Some(channel) = self.channels.remove(&id)
        {
            self.runs_program = true;
            session.channel_success(id)?;
            exec::serve_rsync(self.shared.home(&env), channel, words);
            return Ok(());
        }
        let service = line.split_whitespace().next().unwrap_or_default().to_owned();
        let known = matches!(service.as_str(), "git-upload-pack" | "git-receive-pack");
        let (true, true, Some(channel)) = (self.code_server, known, self.channels.remove(&id)) else {
            return session.channel_failure(id);
        };
        self.runs_program = true;
        session.channel_success(id)?;
        codeserver::serve(self.shared.clone(), channel, &service);
        Ok(())
    }

    async fn subsystem_request(&mut self, id: ChannelId, name: &str, session: &mut Session) -> Result<(), Self::Error> {
        let (Some(env), Some(channel), "sftp") = (self.environment.clone(), self.channels.remove(&id), name) else {
            return session.channel_failure(id);
        };
        if self.shared.sleeps("sftp") {
            return session.channel_failure(id);
        }
        match Sftp::start(self.shared.clone(), &env) {
            Some(sftp) => {
                self.shared.lock().sftp_sessions += 1;
                session.channel_success(id)?;
                let limits = russh_sftp::server::Config { max_client_packet_len: 512 * 1024 };
                russh_sftp::server::run_with_config(channel.into_stream(), sftp, limits).await;
                Ok(())
            }
            None => session.channel_failure(id),
        }
    }
}
