//! Addresses of nodes.

use crate::Error;

/// The port of an endpoint that names none.
const PORT_DEFAULT: u16 = 8000;

/// `host:port` from `host`, `host:port` or `http://host:port`.
fn authority(text: &str) -> Result<String, Error> {
    let wrong = |reason| Error::Endpoint {
        endpoint: text.to_owned(),
        reason,
    };
    if text.starts_with("https://") {
        return Err(wrong("TLS for clients is not served yet; use http://"));
    }
    let rest = text.strip_prefix("http://").unwrap_or(text);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() || rest.contains(['/', '?', '#', '@', ' ']) {
        return Err(wrong("expected host:port or http://host:port"));
    }
    let bracketed = rest.starts_with('[');
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !bracketed || host.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let valid_host = if bracketed {
        host.ends_with(']')
    } else {
        !host.is_empty() && !host.contains(':')
    };
    if !valid_host {
        return Err(wrong("expected a host; an IPv6 address stands in brackets"));
    }
    match port {
        None => Ok(format!("{host}:{PORT_DEFAULT}")),
        Some(port) if port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(format!("{host}:{port}")),
        Some(_) => Err(wrong("expected a port from 1 to 65535")),
    }
}

/// The endpoints of a list with commas between.
pub(crate) fn parse_list(text: &str) -> Result<Vec<String>, Error> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let endpoints = parts.map(authority).collect::<Result<Vec<_>, _>>()?;
    if endpoints.is_empty() {
        return Err(Error::Endpoint {
            endpoint: text.to_owned(),
            reason: "expected at least one host:port",
        });
    }
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_in_every_usual_form() {
        let list = parse_list("a, b:1 ,http://c:2/,[::1]:3,[::1]").unwrap();
        assert_eq!(list, ["a:8000", "b:1", "c:2", "[::1]:3", "[::1]:8000"]);
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for text in [
            "",
            ",",
            "https://a:1",
            "a:0",
            "a:b",
            "a:99999",
            "::1",
            "http://a:1/path",
            "user@a:1",
            ":1",
        ] {
            assert!(parse_list(text).is_err(), "{text}");
        }
    }
}
