use super::*;

fn run_with(args: &[&str]) -> ExitCode {
    main_with(std::iter::once("sluice-hydrator").chain(args.iter().copied()).map(OsString::from))
}

#[test]
fn exit_codes_are_those_that_help_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = |path: &std::path::Path| path.to_str().expect("text").to_owned();
    let dir = text(&folder.path().join("made"));
    assert_eq!(run_with(&["--help"]), ExitCode::SUCCESS);
    assert_eq!(run_with(&["--version"]), ExitCode::SUCCESS);
    assert_eq!(run_with(&[]), ExitCode::from(2));
    assert_eq!(run_with(&["run", "--konfig", "x"]), ExitCode::from(2));
    assert_eq!(run_with(&["run", "--config", &text(&folder.path().join("none.toml"))]), ExitCode::from(2));
    assert_eq!(run_with(&["init", "--dir", &dir]), ExitCode::SUCCESS);
    assert_eq!(run_with(&["init", "--dir", &dir]), ExitCode::from(1));
    let wrong = folder.path().join("wrong.toml");
    std::fs::write(&wrong, init::CONFIG.replace("spool =", "spoool =")).expect("written");
    assert_eq!(run_with(&["run", "--config", &text(&wrong)]), ExitCode::from(2));
}

#[test]
fn help_has_examples() {
    use clap::CommandFactory;
    let mut command = Cli::command();
    command.build();
    for part in command.get_subcommands_mut().filter(|part| part.get_name() != "help") {
        assert!(part.render_help().to_string().contains("Example:"), "{}", part.get_name());
    }
    let help = command.render_help().to_string();
    assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
}
