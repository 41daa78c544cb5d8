//! The message broker: where it is, and what this deployment's exchanges, streams and queues are called there.

use std::fmt::Write as _;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use terse_clicks::rabbit::BrokerConfig;

use crate::config::Config;
use crate::config::address::AmqpAddress;
use crate::config::clicks::BusConfig;
use crate::exit::StartError;
use crate::identity::Identity;

/// How many streams the clicks of a deployment are spread over. It is fixed when a read model is made, and stands in
/// each block of clicks.
pub const PARTITIONS: u16 = 8;

/// The broker of `config`; `None` = the bus is local. Nothing is connected.
///
/// # Errors
/// [`StartError`] when the address can't be one of a broker.
pub fn settings(config: &Config, identity: &Identity) -> Result<Option<BrokerConfig>, StartError> {
    let BusConfig::Amqp(address) = &config.clicks.bus else { return Ok(None) };
    let broker = BrokerConfig::new(&uri(address), &identity.short_text(), PARTITIONS);
    broker.map(Some).map_err(|error| StartError::config(format_args!("bus: {error}")))
}

/// The address as the driver reads it. A secret.
fn uri(address: &AmqpAddress) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut uri = "amqp://".to_owned();
    if let Some((user, password)) = address.credentials() {
        // Writing to a string can't fail.
        let _ = write!(uri, "{}:{}@", encoded(&user), encoded(&password));
    }
    let host = if address.host.contains(':') { format!("[{}]", address.host) } else { address.host.clone() };
    let _ = write!(uri, "{host}:{}/{}", address.port, encoded(&address.vhost));
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_to_the_driver_with_all_that_was_decoded() {
        let told = |text: &str| uri(&AmqpAddress::parse(text).unwrap());
        assert_eq!(told("amqp://bus"), "amqp://bus:5672/%2F");
        assert_eq!(told("amqp://bus/"), "amqp://bus:5672/%2F");
        assert_eq!(told("amqp://me:p%40ss@bus:7000/a%2Fb"), "amqp://me:p%40ss@bus:7000/a%2Fb");
        assert_eq!(told("amqp://[::1]:7000/v"), "amqp://[::1]:7000/v");
        for text in ["amqp://bus", "amqp://me:p%40ss@bus:7000/a%2Fb", "amqp://[::1]:7000/v"] {
            let shown = format!("{:?}", BrokerConfig::new(&told(text), "d", PARTITIONS).unwrap());
            assert!(!shown.contains("ss@") && shown.contains(&AmqpAddress::parse(text).unwrap().host), "{shown}");
        }
    }
}
