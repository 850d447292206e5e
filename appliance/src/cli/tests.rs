use super::*;
use clap::CommandFactory;

fn exit(args: &[&str]) -> String {
    let args = ["sluice-appliance"].iter().chain(args).map(OsString::from);
    format!("{:?}", main_with(args))
}

fn code(number: u8) -> String {
    format!("{:?}", ExitCode::from(number))
}

#[test]
fn the_command_line_is_consistent_and_every_help_has_an_example() {
    Cli::command().debug_assert();
    let mut command = Cli::command();
    assert!(command.render_long_help().to_string().contains("Exit codes:"));
    for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
        let help = sub.render_long_help().to_string();
        assert!(help.contains("Example") && help.contains(sub.get_name()), "{help}");
    }
}

#[test]
fn exit_codes_tell_wrong_use_from_failure() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let config = dir.path().join("appliance.toml");
    let config = config.to_str().unwrap();
    assert_eq!(exit(&["--help"]), code(0));
    assert_eq!(exit(&["frobnicate"]), code(2));
    assert_eq!(exit(&["issue-cert", "--dir", folder, "--role", "king", "--name", "a"]), code(2));
    assert_eq!(exit(&["issue-cert", "--dir", folder, "--role", "agent", "--name", "A/b"]), code(2));
    assert_eq!(exit(&["run", "--config", config]), code(2));
    assert_eq!(exit(&["issue-cert", "--dir", folder, "--role", "agent", "--name", "a"]), code(1));
    assert_eq!(exit(&["init", "--dir", folder, "--listen", "127.0.0.1:0"]), code(0));
    assert_eq!(exit(&["init", "--dir", folder]), code(1));
    assert_eq!(exit(&["issue-cert", "--dir", folder, "--role", "agent", "--name", "a"]), code(0));
    assert_eq!(exit(&["check", "--config", config]), code(0));
    std::fs::write(config, "stat = 1\n").unwrap();
    assert_eq!(exit(&["check", "--config", config]), code(2));
    assert_eq!(exit(&["renew", "--dir", folder, "--name", "localhost", "--days", "0"]), code(1));
    assert_eq!(exit(&["renew", "--dir", folder, "--name", "localhost"]), code(0));
    assert_eq!(exit(&["revoke", "--dir", folder, &"ab".repeat(32)]), code(0));
}
