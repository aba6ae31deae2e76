//! What can go wrong with a command, and the exit code that tells it.

use std::io;
use std::process::ExitCode;

use quorate_api::ProblemCode;
use quorate_client::Error;

/// Why a command failed.
#[derive(Debug)]
pub(super) enum CliError {
    /// The cluster did not do it.
    Client(Error),
    /// The arguments or the environment are wrong.
    Usage(String),
    /// The cluster did it in part only.
    Refused(String),
    /// What was asked for is not there.
    NotFound(String),
    /// Something of this machine failed: what was tried, and how it failed.
    Io(String, io::Error),
    /// Whoever read the output has gone, which is no error.
    BrokenPipe,
    /// Anything else.
    Other(String),
}

impl CliError {
    pub(super) fn io(what: impl Into<String>, error: io::Error) -> CliError {
        CliError::Io(what.into(), error)
    }

    fn exit_code(&self) -> u8 {
        match self {
            CliError::BrokenPipe => 0,
            CliError::Io(..) | CliError::Other(_) => 1,
            CliError::Usage(_) | CliError::Client(Error::Endpoint { .. }) => 2,
            CliError::Client(Error::Connection { .. } | Error::TimedOut { .. } | Error::Protocol { .. }) => 3,
            CliError::Client(
                Error::Conflict { .. }
                | Error::Refused(_)
                | Error::Compacted { .. }
                | Error::OffsetDeleted { .. },
            ) => 4,
            CliError::Refused(_) => 4,
            CliError::NotFound(_) | CliError::Client(Error::NotFound(_)) => 5,
            CliError::Client(Error::UnknownOutcome { .. }) => 6,
        }
    }

    fn message(&self) -> String {
        match self {
            CliError::Client(error @ Error::Connection { .. }) => {
                format!(
                    "{error}\nIs a node running there? `quorate dev` starts a cluster; --endpoint names another."
                )
            }
            CliError::Client(error) => match error
                .problem()
                .and_then(|problem| Some((problem, advice(problem.code)?)))
            {
                Some((problem, advice)) => format!("{} ({advice})", problem.detail),
                None => error.to_string(),
            },
            CliError::Usage(message)
            | CliError::Refused(message)
            | CliError::NotFound(message)
            | CliError::Other(message) => message.clone(),
            CliError::Io(what, error) => format!("cannot {what}: {error}"),
            CliError::BrokenPipe => String::new(),
        }
    }

    /// Tells the operator, and gives the exit code.
    pub(super) fn report(&self) -> ExitCode {
        let message = self.message();
        if !message.is_empty() {
            super::output::complain(&message);
        }
        ExitCode::from(self.exit_code())
    }
}

/// What to do in the words of the command line, where the node says it in those of HTTP.
fn advice(code: ProblemCode) -> Option<&'static str> {
    Some(match code {
        ProblemCode::QuorumLost => {
            "read with --consistency serializable, or try again: writes go on when a majority of the voters is up and \
             connected"
        }
        ProblemCode::Witness => {
            "read from another node (--endpoint), or without --consistency serializable to be sent to the leader"
        }
        ProblemCode::MemberNotFound => "`quorate nodes` lists the members",
        ProblemCode::LeaseNotFound => {
            "nothing changed; grant a lease with `quorate lease grant` and take its id"
        }
        ProblemCode::SessionNotFound => "nothing changed; `quorate sessions list` lists the sessions",
        ProblemCode::NoRoom => {
            "nothing changed; `quorate nodes` shows the nodes: raise a capacity (`quorate sessions capacity`), end a drain, \
             or add a node"
        }
        ProblemCode::StreamNotFound => {
            "`quorate stream list` lists the streams, `quorate stream create` makes one"
        }
        ProblemCode::PartitionNotFound => "`quorate stream describe` shows the partitions",
        ProblemCode::GroupNotFound => {
            "`quorate stream group list` lists the groups, `quorate stream group create` makes one"
        }
        ProblemCode::SectionNotFound | ProblemCode::SettingNotFound => {
            "`quorate settings list` shows what there is"
        }
        _ => return None,
    })
}

impl From<Error> for CliError {
    fn from(error: Error) -> CliError {
        CliError::Client(error)
    }
}

#[cfg(test)]
mod tests {
    use quorate_api::Problem;

    use super::*;

    #[test]
    fn advice_is_in_the_words_of_the_command_line() {
        let refused = |code, action| {
            let problem = Problem::new(code, "what happened", action);
            CliError::Client(Error::Refused(Box::new(problem))).message()
        };
        assert_eq!(
            refused(
                ProblemCode::MemberNotFound,
                "GET /cluster/nodes lists the members"
            ),
            "what happened (`quorate nodes` lists the members)"
        );
        assert_eq!(
            refused(ProblemCode::FutureRevision, "take another"),
            "what happened (take another)"
        );
    }
}
