//! Which of the platform's jobs touch the code of their environment, so that writes to code wait for their end. All other
//! jobs, and types that are not known here, are shown and hold nothing.

use crate::control::Workflow;

/// The type of a job as the API names it, and why writes wait for it. Most are those that Terminus starts; of the other
/// ones, `sync_code` is the platform's own, and the last five are named by its older clients and its documentation.
const CODE_JOBS: [(&str, &str); 23] = [
    ("sync_code", "brings a commit or push into the code"),
    ("sync_code_with_build", "brings a commit or push into the code and builds it"),
    ("commit_and_push_on_server_changes", "commits what is there while it runs"),
    ("enable_on_server_development", "makes the code writable"),
    ("enable_git_mode", "resets the code to the commit"),
    ("deploy", "brings other code into the environment"),
    ("deploy_product", "replaces the code by that of an upstream"),
    ("merge_dev_into_cloud_development_environment", "merges code into the environment"),
    ("merge_cloud_development_environment_into_dev", "merges code into Dev"),
    ("apply_upstream_updates", "merges code of the upstream"),
    ("switch_upstream", "replaces the upstream and merges its code"),
    ("create_environment", "makes the environment with its code"),
    ("create_cloud_development_environment", "makes the environment with its code"),
    ("delete_cloud_development_environment", "deletes the environment with its code"),
    ("delete_site", "deletes the site with its code"),
    ("do_migration", "replaces the code by an archive of the site"),
    ("restore_code", "replaces the code by a backup"),
    ("wipe", "empties the environment"),
    ("converge_environment", "builds the container with its code anew"),
    ("initialize_environment", "makes the environment with its code"),
    ("convert_site", "moves the code to another upstream or CMS"),
    ("import_code", "replaces the code by an archive"),
    ("restore_environment", "replaces code, database and files by a backup"),
];

/// Jobs that the platform lists for the site and not for an environment. They change the branch that Dev has.
const SITE_JOBS: [&str; 4] = ["deploy_product", "switch_upstream", "convert_site", "delete_site"];

/// Jobs that bring a commit into the code.
const SYNC_JOBS: [&str; 2] = ["sync_code", "sync_code_with_build"];

/// Whether a job commits what is uncommitted.
pub(super) fn is_commit(job: &Workflow) -> bool {
    job.kind == "commit_and_push_on_server_changes"
}

/// Why writes to code wait for a job of this type; `None`: they do not.
pub(super) fn holds_code(kind: &str) -> Option<&'static str> {
    CODE_JOBS.iter().find(|(known, _)| *known == kind).map(|(_, why)| *why)
}

/// Whether a job is one of this environment.
pub(super) fn concerns(job: &Workflow, environment: &str) -> bool {
    match &job.environment {
        Some(name) => name == environment,
        None => environment == "dev" && SITE_JOBS.contains(&job.kind.as_str()),
    }
}

/// Whether a job brings a commit into the code.
pub(super) fn is_sync(job: &Workflow) -> bool {
    SYNC_JOBS.contains(&job.kind.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All types that Terminus starts for a site or an environment, and those of its recordings.
    #[test]
    fn only_jobs_that_touch_code_hold_it() {
        let code = [
            "sync_code",
            "sync_code_with_build",
            "commit_and_push_on_server_changes",
            "enable_on_server_development",
            "enable_git_mode",
            "deploy",
            "merge_dev_into_cloud_development_environment",
            "merge_cloud_development_environment_into_dev",
            "apply_upstream_updates",
            "switch_upstream",
            "convert_site",
            "restore_code",
            "do_migration",
            "wipe",
        ];
        for kind in code {
            assert!(holds_code(kind).is_some(), "{kind}");
        }
        // `do_import` is an import of the database or of files.
        let others = [
            "do_export",
            "do_import",
            "clone_database",
            "clone_files",
            "restore_database",
            "restore_files",
            "clear_cache",
            "clear_code_cache",
            "clear_redis_cache",
            "lock_environment",
            "unlock_environment",
            "set_primary_domain",
            "disable_ssl",
            "rotate_environment_randseed",
            "change_backup_schedule",
            "change_site_service_level",
            "enable_addon",
            "disable_addon",
            "enable_new_relic_for_site",
            "disable_new_relic_for_site",
            "check_upstream_updates",
            "add_site_user_membership",
            "remove_site_user_membership",
            "complete_migration",
            "take_screenshot",
            "scale",
            "something new",
            "",
        ];
        for kind in others {
            assert_eq!(holds_code(kind), None, "{kind}");
        }
        assert!(SITE_JOBS.iter().chain(&SYNC_JOBS).all(|kind| holds_code(kind).is_some()));
    }

    #[test]
    fn jobs_of_the_site_concern_dev_if_they_touch_its_code() {
        let job = |kind: &str, environment: Option<&str>| {
            let json = serde_json::json!({ "id": "1", "type": kind, "environment": environment });
            Workflow::from_json(&json).expect("decodes")
        };
        assert!(concerns(&job("do_export", Some("test")), "test"));
        assert!(!concerns(&job("sync_code", Some("dev")), "feature-x"));
        assert!(concerns(&job("switch_upstream", None), "dev"));
        assert!(!concerns(&job("switch_upstream", None), "feature-x"));
        assert!(!concerns(&job("add_site_user_membership", None), "dev"));
        assert!(is_sync(&job("sync_code_with_build", None)) && !is_sync(&job("deploy", None)));
    }
}
