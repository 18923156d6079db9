//! Which of the platform's jobs touch the code of their environment, so that writes to code wait for their end. All other
//! jobs, and types that are not known here, are shown and hold nothing.

/// The type of a job as the API names it, and why writes wait for it.
const CODE_JOBS: [(&str, &str); 21] = [
    ("sync_code", "brings a commit or push into the code"),
    ("commit_and_push_on_server_changes", "commits what is there while it runs"),
    ("enable_on_server_development", "makes the code writable"),
    ("enable_git_mode", "resets the code to the commit"),
    ("deploy", "brings other code into the environment"),
    ("merge_dev_into_cloud_development_environment", "merges code into the environment"),
    ("merge_cloud_development_environment_into_dev", "merges code into Dev"),
    ("apply_upstream_updates", "merges code of the upstream"),
    ("switch_upstream", "replaces the upstream and merges its code"),
    ("converge_environment", "builds the container with its code anew"),
    ("initialize_environment", "makes the environment with its code"),
    ("create_environment", "makes the environment with its code"),
    ("create_cloud_development_environment", "makes the environment with its code"),
    ("delete_cloud_development_environment", "deletes the environment with its code"),
    ("convert_site", "moves the code to another upstream or CMS"),
    ("do_import", "replaces the code by an archive"),
    ("do_migration", "replaces the code by that of another host"),
    ("import_code", "replaces the code by an archive"),
    ("restore_code", "replaces the code by a backup"),
    ("restore_environment", "replaces code, database and files by a backup"),
    ("wipe", "empties the environment"),
];

/// Why writes to code wait for a job of this type; `None`: they do not.
pub(super) fn holds_code(kind: &str) -> Option<&'static str> {
    CODE_JOBS.iter().find(|(known, _)| *known == kind).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_jobs_that_touch_code_hold_it() {
        for kind in ["sync_code", "commit_and_push_on_server_changes", "enable_git_mode", "deploy", "wipe"] {
            assert!(holds_code(kind).is_some(), "{kind}");
        }
        let others = ["do_export", "clone_database", "clone_files", "clear_cache", "restore_database", "import_files"];
        for kind in others.into_iter().chain(["scale", "", "something new"]) {
            assert_eq!(holds_code(kind), None, "{kind}");
        }
    }
}
