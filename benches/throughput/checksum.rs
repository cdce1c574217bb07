//! A sum that tells whether every document arrived as it was written, whatever the order.
//!
//! Each document gives a 64-bit hash; the hashes are added with wrap-around. Quick rather than strong (two lanes of multiplications, some 50 ns for 300 bytes), since it is taken in every timed run.

const KEYS: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xC2B2_AE3D_27D4_EB4F];

/// The hash of one document.
pub fn of(document: &[u8]) -> u64 {
    let mut lanes = KEYS;
    let (pairs, rest) = document.as_chunks::<16>();
    for pair in pairs {
        for (lane, half) in lanes.iter_mut().zip(pair.as_chunks::<8>().0) {
            *lane = step(*lane, u64::from_le_bytes(*half));
        }
    }
    for byte in rest {
        lanes[0] = step(lanes[0], u64::from(*byte));
    }
    let length = document.len() as u64;
    step(step(lanes[0], lanes[1]), length)
}

fn step(lane: u64, word: u64) -> u64 {
    (lane ^ word).wrapping_mul(KEYS[0]).rotate_left(29)
}
