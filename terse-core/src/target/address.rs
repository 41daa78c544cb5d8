//! Which IP addresses can be reached from everywhere.
//!
//! After the IANA special-purpose registries for IPv4 (RFC 6890 and its
//! updates, as of 2025) and IPv6, and the multicast and reserved spaces.
//! IPv6 is read the other way round: only 2000::/3 has been given out as global
//! unicast, so whatever lies outside is refused without being listed.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A block of addresses: its first one and how many leading bits are fixed.
struct Block<A>(A, u32);

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u32) -> Block<Ipv4Addr> {
    Block(Ipv4Addr::new(a, b, c, d), bits)
}

const fn v6(start: [u16; 4], bits: u32) -> Block<Ipv6Addr> {
    Block(Ipv6Addr::new(start[0], start[1], start[2], start[3], 0, 0, 0, 0), bits)
}

const LOCAL_V4: [Block<Ipv4Addr>; 16] = [
    v4(0, 0, 0, 0, 8),          // this network
    v4(10, 0, 0, 0, 8),         // private use
    v4(100, 64, 0, 0, 10),      // shared by carriers
    v4(127, 0, 0, 0, 8),        // loopback
    v4(169, 254, 0, 0, 16),     // link-local; metadata services of clouds
    v4(172, 16, 0, 0, 12),      // private use
    v4(192, 0, 0, 0, 24),       // protocol assignments
    v4(192, 0, 2, 0, 24),       // documentation
    v4(192, 88, 99, 0, 24),     // 6to4 relays, withdrawn
    v4(192, 168, 0, 0, 16),     // private use
    v4(198, 18, 0, 0, 15),      // benchmarks
    v4(198, 51, 100, 0, 24),    // documentation
    v4(203, 0, 113, 0, 24),     // documentation
    v4(224, 0, 0, 0, 4),        // multicast
    v4(240, 0, 0, 0, 4),        // reserved
    v4(255, 255, 255, 255, 32), // broadcast
];

/// Globally reachable parts of blocks above.
const GLOBAL_V4: [Block<Ipv4Addr>; 2] = [
    v4(192, 0, 0, 9, 32),  // Port Control Protocol
    v4(192, 0, 0, 10, 32), // TURN
];

const GLOBAL_UNICAST: Block<Ipv6Addr> = v6([0x2000, 0, 0, 0], 3);

const LOCAL_V6: [Block<Ipv6Addr>; 3] = [
    v6([0x2001, 0, 0, 0], 23),     // protocol assignments; Teredo, benchmarks, ORCHID
    v6([0x2001, 0xdb8, 0, 0], 32), // documentation
    v6([0x3fff, 0, 0, 0], 20),     // documentation
];

/// Globally reachable parts of blocks above.
const GLOBAL_V6: [Block<Ipv6Addr>; 7] = [
    Block(Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 1), 128), // Port Control Protocol
    Block(Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 2), 128), // TURN
    Block(Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 3), 128), // service registration
    v6([0x2001, 3, 0, 0], 32),                              // AMT
    v6([0x2001, 4, 0x112, 0], 48),                          // AS112
    v6([0x2001, 0x20, 0, 0], 28),                           // ORCHIDv2
    v6([0x2001, 0x30, 0, 0], 28),                           // drone entity tags
];

/// Addresses of the IPv4 internet as a NAT64 writes them.
const NAT64: Block<Ipv6Addr> = v6([0x64, 0xff9b, 0, 0], 96);
/// Addresses that hold an IPv4 address in their bits 16 to 47.
const SIX_TO_FOUR: Block<Ipv6Addr> = v6([0x2002, 0, 0, 0], 16);
/// Blocks whose last 32 bits are the IPv4 address of the very same machine.
const EMBEDDING: [Block<Ipv6Addr>; 4] = [
    NAT64,
    v6([0, 0, 0, 0], 96),                                  // compatible, withdrawn
    Block(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96), // mapped
    Block(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96), // translated
];

impl Block<Ipv4Addr> {
    fn contains(&self, address: Ipv4Addr) -> bool {
        (self.0.to_bits() ^ address.to_bits()).leading_zeros() >= self.1
    }
}

impl Block<Ipv6Addr> {
    fn contains(&self, address: Ipv6Addr) -> bool {
        (self.0.to_bits() ^ address.to_bits()).leading_zeros() >= self.1
    }
}

/// Whether `address` can be reached from everywhere.
pub(super) fn is_global_v4(address: Ipv4Addr) -> bool {
    let within = |blocks: &[Block<Ipv4Addr>]| blocks.iter().any(|block| block.contains(address));
    !within(&LOCAL_V4) || within(&GLOBAL_V4)
}

/// Whether `address` can be reached from everywhere. NAT64 and 6to4 addresses
/// are judged by the IPv4 address inside; mapped, compatible and translated
/// ones belong to one machine's own interfaces and are refused.
pub(super) fn is_global_v6(address: Ipv6Addr) -> bool {
    let within = |blocks: &[Block<Ipv6Addr>]| blocks.iter().any(|block| block.contains(address));
    if NAT64.contains(address) {
        return is_global_v4(last_32_bits(address));
    }
    if SIX_TO_FOUR.contains(address) {
        return is_global_v4(Ipv4Addr::from_bits((address.to_bits() >> 80) as u32));
    }
    GLOBAL_UNICAST.contains(address) && (!within(&LOCAL_V6) || within(&GLOBAL_V6))
}

/// The IPv4 address that is the same machine as `address`, if it is written so.
pub(super) fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    // `::` and `::1` look like compatible ones but are not.
    let special = address.is_unspecified() || address.is_loopback();
    let embeds = !special && EMBEDDING.iter().any(|block| block.contains(address));
    embeds.then(|| last_32_bits(address))
}

fn last_32_bits(address: Ipv6Addr) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() as u32)
}
