//! What some process of the user learned last about a site: its running jobs, and its environments. Both lists are long, and
//! the mounts of a site need the same ones.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::environment::Environment;
use super::http::segment;
use super::login::write_private;
use super::workflow::Workflow;

/// What is shared of an environment. No passwords.
const SHARED_FIELDS: [&str; 5] =
    ["on_server_development", "target_commit", "diffstat", "is_initialized", "initialized"];

/// See the module header.
pub(super) struct Board {
    /// `None`: nothing is shared.
    dir: Option<PathBuf>,
}

impl Board {
    pub(super) fn new(dir: Option<PathBuf>) -> Self {
        Self { dir }
    }

    /// The jobs that ran, if they were learned within this time.
    pub(super) fn jobs(&self, site: &str, max_age: Duration) -> Option<Vec<Workflow>> {
        let (value, _) = self.read(&format!("jobs-{}", segment(site)), max_age)?;
        Some(Workflow::list(value.get("jobs").unwrap_or(&Value::Null)))
    }

    pub(super) fn write_jobs(&self, site: &str, running: &[Workflow]) {
        let job = |job: &Workflow| json!({ "id": job.id, "type": job.kind, "environment": job.environment, "active_description": job.description });
        let jobs = running.iter().map(job).collect::<Vec<_>>();
        self.write(&format!("jobs-{}", segment(site)), json!({ "learned": now(), "jobs": jobs }));
    }

    /// An environment, and when it was asked for, if that was within this time.
    pub(super) fn environment(&self, site: &str, env: &str, max_age: Duration) -> Option<(Environment, SystemTime)> {
        let (value, asked) = self.read(&format!("environments-{}", segment(site)), max_age)?;
        let environment = Environment::from_json(value.get("environments")?.get(env)?).ok()?;
        Some((environment, asked))
    }

    /// `asked`: when the question was sent: the answer may be as old.
    pub(super) fn write_environments(&self, site: &str, all: &Map<String, Value>, asked: SystemTime) {
        let shared = |environment: &Value| -> Value {
            let field = |name: &&str| Some(((*name).to_owned(), environment.get(*name)?.clone()));
            SHARED_FIELDS.iter().filter_map(field).collect::<Map<_, _>>().into()
        };
        let all: Map<String, Value> = all.iter().map(|(name, value)| (name.clone(), shared(value))).collect();
        let name = format!("environments-{}", segment(site));
        self.write(&name, json!({ "learned": seconds(asked), "environments": all }));
    }

    /// The content of a file and its time, if that is within `max_age`.
    fn read(&self, name: &str, max_age: Duration) -> Option<(Value, SystemTime)> {
        let file = self.dir.as_ref()?.join(format!("{name}.json"));
        let value: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        let learned = value.get("learned")?.as_f64()?;
        // A time to come is from a clock that was wrong.
        let age = now() - learned;
        let is_recent = (0.0..max_age.as_secs_f64()).contains(&age);
        is_recent.then(|| (value, UNIX_EPOCH + Duration::from_secs_f64(learned)))
    }

    fn write(&self, name: &str, content: Value) {
        let Some(dir) = &self.dir else { return };
        if let Err(error) = write_private(dir, &format!("{name}.json"), content.to_string().as_bytes()) {
            log::debug!("{}: {error}", dir.display());
        }
    }
}

fn now() -> f64 {
    seconds(SystemTime::now())
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ConnectionMode;

    const HOUR: Duration = Duration::from_secs(3600);

    fn board(dir: &tempfile::TempDir) -> Board {
        Board::new(Some(dir.path().join("api")))
    }

    #[test]
    fn what_one_process_learned_serves_the_others_for_a_while() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(board(&dir).jobs("s", HOUR), None);
        let job = json!({ "id": "1", "type": "deploy", "environment": "test", "active_description": "Deploying" });
        let jobs = Workflow::list(&json!([job]));
        board(&dir).write_jobs("s", &jobs);
        assert_eq!(board(&dir).jobs("s", HOUR), Some(jobs));
        assert_eq!(board(&dir).jobs("s", Duration::ZERO), None);
        assert_eq!(board(&dir).jobs("another", HOUR), None);
    }

    #[test]
    fn environments_are_shared_without_passwords_and_with_the_time_of_the_question() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let lock = json!({ "locked": true, "username": "u", "password": "secret" });
        let dev = json!({ "on_server_development": true, "target_commit": "c", "diffstat": [], "lock": lock });
        let all = json!({ "dev": dev, "test": {} });
        let asked = SystemTime::now() - Duration::from_secs(60);
        board(&dir).write_environments("s", all.as_object().expect("an object"), asked);
        let (found, at) = board(&dir).environment("s", "dev", HOUR).expect("shared");
        assert_eq!((found.mode, found.target_commit.as_deref()), (ConnectionMode::Sftp, Some("c")));
        assert!(asked.duration_since(at).unwrap_or_default() < Duration::from_millis(1));
        assert!(board(&dir).environment("s", "dev", Duration::from_secs(59)).is_none());
        assert!(board(&dir).environment("s", "gone", HOUR).is_none());
        let text = fs::read_to_string(dir.path().join("api/environments-s.json")).expect("there");
        assert!(!text.contains("secret"), "{text}");
    }
}
