//! Where a server is, as `--server` says it.

use std::fmt;
use std::str::FromStr;

use http::Uri;

/// `http://HOST[:PORT][/PREFIX]` or the same with https, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// Where a path of the server is. `path` begins with a slash and is escaped.
    pub(super) fn uri(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// Whether it speaks TLS.
    pub fn is_secure(&self) -> bool {
        self.0.starts_with("https:")
    }

    /// Host, in brackets where it is an IPv6 address, and port; its scheme's own where none is named.
    pub fn host_and_port(&self) -> (String, u16) {
        let uri: Uri = self.0.parse().expect("it was checked when it was made");
        (
            uri.host().unwrap_or_default().to_owned(),
            uri.port_u16().unwrap_or(if self.is_secure() { 443 } else { 80 }),
        )
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "an address is http://HOST:PORT, such as http://127.0.0.1:8000";
        let uri: Uri = text.parse().map_err(|_| form.to_owned())?;
        let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme)).ok_or(form)?;
        // Neither a user's name before the host nor anything but a port behind it.
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let port = uri.host().filter(|host| !host.is_empty()).and_then(|host| authority.strip_prefix(host));
        let port_is_well = match port.map(|port| port.strip_prefix(':')) {
            None => false,
            Some(None) => port == Some(""),
            Some(Some(digits)) => digits.parse::<u16>().is_ok(),
        };
        if !port_is_well || uri.query().is_some() || text.contains('#') {
            return Err(form.to_owned());
        }
        Ok(Self(format!("{scheme}://{authority}{}", uri.path().trim_end_matches('/'))))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_http_with_a_host() {
        for (text, uri) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000/x"),
            ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/x"),
            ("HTTP://host", "http://host/x"),
            ("http://[::1]:80", "http://[::1]:80/x"),
            ("http://proxy/weir/", "http://proxy/weir/x"),
            ("https://host:8443", "https://host:8443/x"),
        ] {
            assert_eq!(text.parse::<Address>().map(|address| address.uri("/x")), Ok(uri.to_owned()));
        }
        for wrong in [
            "",
            "127.0.0.1:8000",
            "host",
            "http://",
            "http://:80",
            "http://h:x",
            "http://h:99999",
            "http://h:",
            "ftp://h",
            "http://h?q",
            "http://h#f",
            "http://user@h",
            "http://a b",
        ] {
            assert!(wrong.parse::<Address>().is_err_and(|error| error.contains("such as")), "{wrong:?}");
        }
        for (text, host, port) in
            [("http://h", "h", 80), ("http://[::1]:7/x", "[::1]", 7), ("https://h", "h", 443)]
        {
            assert_eq!(text.parse::<Address>().unwrap().host_and_port(), (host.to_owned(), port));
        }
    }
}
