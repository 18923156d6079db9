//! Client of Pantheon's API: login, environments, mode, workflows, connection information.
