//! New tokens for the API.
//!
//! Guarantees 256 random bits of the operating system's. The token goes to stdout and nowhere else, so that it can be sent into a file; what belongs into the file of tokens goes to stderr and holds
//! its hash alone. Asks no server and writes no file.

use clap::{Args, ValueEnum};
use rand::TryRngCore as _;

use super::failure::Failure;
use super::output;
use crate::config::tokens::{self, Role};

/// The command `token`.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct TokenArgs {
    /// Who gets it: the name that the log of changes shows
    #[arg(value_name = "NAME", value_parser = tokens::checked_name)]
    name: String,
    /// What it may do
    #[arg(long, value_enum, default_value_t = Right::Read)]
    role: Right,
    /// How it is printed: as text, or as JSON with the hash
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
}

const HELP: &str = "\
The token is printed once and kept nowhere: the file of tokens has its hash. The configuration names that file with auth: {tokens_file: tokens.yaml}; a change of it is in force within seconds,
without a restart, and taking a line out revokes the token.
Examples:
  drover token ci --role write > ci.token        the token into a file, the line for tokens.yaml on the terminal
  drover status --token-file ci.token
  curl -H \"Authorization: Bearer $(cat ci.token)\" http://127.0.0.1:8080/api/v1/topics";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Right {
    /// Look at everything
    Read,
    /// Change things, too
    Write,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
}

impl From<Right> for Role {
    fn from(right: Right) -> Self {
        match right {
            Right::Read => Self::Read,
            Right::Write => Self::Write,
        }
    }
}

pub(super) fn run(arguments: &TokenArgs) -> Result<(), Failure> {
    let mut random = [0; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut random).map_err(|error| Failure::Failed(format!("the system gives no random bytes: {error}")))?;
    let token = tokens::token_of(random);
    let role = Role::from(arguments.role).as_str();
    let name = &arguments.name;
    let sha256 = tokens::hash(token.as_bytes());
    if arguments.output == Form::Json {
        return output::write(&format!("{}\n", serde_json::json!({"name": name, "role": role, "sha256": sha256, "token": token})));
    }
    output::write(&format!("{token}\n"))?;
    // A name may hold what YAML would read as something else.
    output::tell_lines(&format!(
        "for the file that auth.tokens_file names, under `tokens:`\n  - {{name: \"{name}\", role: {role}, sha256: \"{sha256}\"}}\n"
    ));
    Ok(())
}
