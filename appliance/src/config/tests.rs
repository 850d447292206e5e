use super::*;
use proptest::prelude::*;

fn template() -> String {
    TEMPLATE.replace("{listen}", "0.0.0.0:9443").replace("{cache}", "file:///var/lib/sluice/cache")
}

/// The template with its examples in force.
fn full() -> String {
    template()
        .lines()
        .map(|line| line.strip_prefix("#: ").unwrap_or(line))
        .fold(String::new(), |all, line| all + line + "\n")
}

fn refused(text: &str) -> String {
    Config::parse(text).unwrap_err().to_string()
}

#[test]
fn the_template_is_valid_and_means_the_defaults() {
    let settings = Config::parse(&template()).unwrap().settings();
    let defaults = Settings::default();
    assert_eq!((settings.slots, settings.policy), (defaults.slots, defaults.policy));
}

#[test]
fn the_examples_in_the_template_are_valid_and_understood() {
    let config = Config::parse(&full()).unwrap();
    let settings = config.settings();
    assert_eq!(settings.slots.get(), 8);
    let policy = &settings.policy;
    assert_eq!((policy.min_interval_ms, policy.max_interval_ms), (3_600_000, 43_200_000));
    assert_eq!(policy.limit.as_deref(), Some("200Mbit/s"));
    assert_eq!(policy.windows.len(), 2);
    assert_eq!((policy.scrub_interval_ms, policy.scrub_rate), (Some(7 * 24 * 3_600_000), Some(20_000_000)));
    assert_eq!(config.limits().unwrap().windows.len(), 2);
    assert_eq!(config.store_options().settings["account_name"], "examplestore");
    assert_eq!(config.http_limits().connections_max, 16384);
}

#[test]
fn paths_are_relative_to_the_files_folder() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("appliance.toml");
    std::fs::write(&file, template()).unwrap();
    let config = Config::load(&file).unwrap();
    assert_eq!(config.state, dir.path().join("state"));
    assert_eq!(config.tls_files().key, dir.path().join("tls/server-key.pem"));
    std::fs::write(&file, template().replace("\"state\"", "\"/srv/state\"")).unwrap();
    assert_eq!(Config::load(&file).unwrap().state, Path::new("/srv/state"));
    let missing = Config::load(&dir.path().join("none.toml")).unwrap_err().to_string();
    assert!(missing.contains("none.toml"), "{missing}");
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_known_ones() {
    let text = template().replace("listen =", "lisen =");
    let line = text.lines().position(|line| line.starts_with("lisen")).unwrap() + 1;
    let error = refused(&text);
    assert!(error.contains("`lisen`") && error.contains(&format!("line {line}")), "{error}");
    assert!(error.contains("`listen`") && error.contains("`connections_max`"), "{error}");
    assert!(refused(&(template() + "\n[strange]\n")).contains("`strange`"));
    assert!(refused(&full().replace("limit = \"20Mbit/s\"", "limits = \"20Mbit/s\"")).contains("`limits`"));
}

#[test]
fn wrong_values_are_named_with_what_is_right() {
    let with = |from: &str, to: &str| {
        assert!(full().contains(from), "{from}");
        refused(&full().replace(from, to))
    };
    assert!(with("min_interval = \"1h\"", "min_interval = \"soon\"").contains("write 30s"));
    assert!(with("min_interval = \"1h\"", "min_interval = \"-1h\"").contains("write 30s"));
    assert!(with("min_interval = \"1h\"", "min_interval = \"999ms\"").contains("1s at least"));
    assert!(with("min_interval = \"1h\"", "min_interval = \"13h\"").contains("max_interval"));
    assert!(with("slots = 8", "slots = 0").contains("slots"));
    assert!(with("Mon-Fri 08:00", "Mo-Fr 08:00").contains("Mon-Fri 08:00-18:00"));
    assert!(with("limit = \"200Mbit/s\"", "limit = \"200Mb/s\"").contains("200Mbit/s"));
    assert!(with("timezone = \"system\"", "timezone = \"Mars/Olympus\"").contains("Europe/Berlin"));
    assert!(with("rate = \"20MB/s\"", "rate = \"fast\"").contains("50MB/s"));
    assert!(with("0.0.0.0:9443", "appliance.example:9443").contains("socket address"));
    assert!(refused(&template().replace("state = \"state\"", "")).contains("`state`"));
}

#[test]
fn secrets_are_not_shown() {
    let config = Config::parse(&full().replace("account_name = ", "access_key = ")).unwrap();
    assert!(!format!("{config:?}").contains("examplestore"));
}

#[test]
fn a_mistake_beside_a_secret_does_not_show_it() {
    let secret = "hush-4711";
    let mistakes = [
        // The key without the line above it that says whose it is.
        format!("[cache]\nurl = \"azure://c\"\naccess_key = \"{secret}\"\n"),
        format!("[cache]\nurl = \"azure://c\"\n[cache.settings]\naccess_key = \"{secret}\n"),
        format!("[cache]\nurl = \"azure://c\"\n[cache.settings]\naccess_key = {secret}\n"),
        format!("[cache]\nurl = \"azure://c\"\n[cache.settings]\naccess_key = [\"{secret}\"]\n"),
        "[cache]\nurl = \"azure://c\"\n[cache.settings]\naccess_key = 4711\n".to_owned(),
        format!("[cache]\nurl = \"azure://c\"\nsettings = \"{secret}\"\n"),
        format!("[cache.settings]\naccess_key = \"{secret}\"\naccess_key = \"{secret}\"\n"),
        format!("{secret}\n"),
    ];
    for text in mistakes {
        let error = Config::parse(&text).unwrap_err().to_string();
        assert!(!error.contains("4711"), "{text}: {error}");
        assert!(error.starts_with("line "), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_fall_over(text in "(\\[?[a-z]{1,8}\\]?( = [\"0-9a-z\\[{]{1,10})?\n){0,12}") {
        let _ = Config::parse(&text);
    }
}
