//! The binary: configuration, wiring, roles, subcommands, telemetry, shutdown.
