//! The running jobs of a site as some process of the user learned them last. Their list is the longest answer of the API,
//! and the mounts of a site need the same one.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::http::segment;
use super::login::write_private;
use super::workflow::Workflow;

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
    pub(super) fn read(&self, site: &str, max_age: Duration) -> Option<Vec<Workflow>> {
        let file = self.dir.as_ref()?.join(name(site));
        let value: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        let age = now() - value.get("learned")?.as_f64()?;
        // A time to come is from a clock that was wrong.
        (0.0..max_age.as_secs_f64()).contains(&age).then(|| Workflow::list(value.get("jobs").unwrap_or(&Value::Null)))
    }

    pub(super) fn write(&self, site: &str, running: &[Workflow]) {
        let Some(dir) = &self.dir else { return };
        let job = |job: &Workflow| json!({ "id": job.id, "type": job.kind, "environment": job.environment, "active_description": job.description });
        let text = json!({ "learned": now(), "jobs": running.iter().map(job).collect::<Vec<_>>() }).to_string();
        if let Err(error) = write_private(dir, &name(site), text.as_bytes()) {
            log::debug!("{}: {error}", dir.display());
        }
    }
}

fn name(site: &str) -> String {
    format!("jobs-{}.json", segment(site))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_process_learned_serves_the_others_for_a_while() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let board = Board::new(Some(dir.path().join("api")));
        let hour = Duration::from_secs(3600);
        assert_eq!(board.read("s", hour), None);
        let job = json!({ "id": "1", "type": "deploy", "environment": "test", "active_description": "Deploying" });
        let jobs = Workflow::list(&json!([job]));
        board.write("s", &jobs);
        assert_eq!(Board::new(Some(dir.path().join("api"))).read("s", hour), Some(jobs));
        assert_eq!(board.read("s", Duration::ZERO), None);
        assert_eq!(board.read("another", hour), None);
    }
}
