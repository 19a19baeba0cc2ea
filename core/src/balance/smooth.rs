//! Smooth weighted round robin: an order of turns in which, at every moment, each member has had its share to
//! within one turn.
//!
//! This is the chairman assignment problem, solved by Tijdeman's rule (Discrete Mathematics 32, 1980): the
//! next turn goes to a member that is nearly a turn behind its share, and among those to the one that would
//! be too far behind first. With n members none is ever off by more than 1 - 1 / (2n - 2).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Turns of the longest order, unless there are more members than half of it.
const MAX_TURNS: usize = 16_384;

/// How often each member is in an order that stands for `weights` (none of them 0). Exact if the reduced
/// weights sum to 16384 or less; else rounded, by which a share changes by less than 1 / 8192 of all (with
/// more than 8192 members: at most doubles).
pub(super) fn units(weights: &[u32]) -> Vec<u32> {
    let reduced = reduce(weights.iter().map(|&weight| u64::from(weight)).collect());
    let sum: u64 = reduced.iter().sum();
    let max_turns = MAX_TURNS.max(2 * weights.len()) as u64;
    let fitting = if sum <= max_turns {
        reduced
    } else {
        let room = max_turns - weights.len() as u64;
        reduce(reduced.iter().map(|&weight| ((weight * room + sum / 2) / sum).max(1)).collect())
    };
    fitting.into_iter().map(|units| units as u32).collect()
}

fn reduce(mut weights: Vec<u64>) -> Vec<u64> {
    let divisor = weights.iter().copied().fold(0, |mut a, mut b| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    });
    weights.iter_mut().for_each(|weight| *weight /= divisor.max(1));
    weights
}

/// The members' places in the order of their turns, each as often as `units` says. `carry` is by how much
/// each was behind its share before, in 1 / 2^32 of one turn: whoever was behind comes earlier. The order may
/// still be repeated.
pub(super) fn order(units: &[u32], carry: &[i64]) -> Vec<u16> {
    let length = units.iter().map(|&units| i64::from(units)).sum::<i64>();
    if units.len() < 2 {
        return vec![0; length as usize];
    }
    let members = 2 * units.len() as i64 - 2;
    // In 1 / (length * members) of one turn, which makes all of it whole numbers.
    let owed_at_start = |place: usize| ((i128::from(carry[place]) * i128::from(length)) >> 32) as i64;
    let turn_when = |place: usize, got: i64, owed: i64| {
        let (wanted, speed) =
            (owed + members * (length * got - owed_at_start(place)), members * i64::from(units[place]));
        // Rounded up.
        wanted.div_euclid(speed) + i64::from(wanted.rem_euclid(speed) != 0)
    };
    let may = |place, got| turn_when(place, got, length);
    let must = |place, got| turn_when(place, got, length * (members - 1));

    let mut got = vec![0i64; units.len()];
    let mut waiting: BinaryHeap<_> = (0..units.len()).map(|place| Reverse((may(place, 0), place))).collect();
    let mut ready = BinaryHeap::new();
    let mut order = Vec::with_capacity(length as usize);
    for turn in 1..=length {
        while let Some(&Reverse((since, place))) = waiting.peek()
            && (since <= turn || ready.is_empty())
        {
            waiting.pop();
            ready.push(Reverse((must(place, got[place]), place)));
        }
        let Some(Reverse((_, place))) = ready.pop() else { break };
        order.push(place as u16);
        got[place] += 1;
        if got[place] < i64::from(units[place]) {
            waiting.push(Reverse((may(place, got[place]), place)));
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The furthest that any member is from its exact share after any number of turns, two rounds long, as a
    /// fraction of one turn.
    fn worst(units: &[u32], carry: &[i64]) -> f64 {
        let order = order(units, carry);
        let length = order.len() as i64;
        let mut worst = 0f64;
        let mut got = vec![0i64; units.len()];
        for (turn, &place) in order.iter().chain(&order).enumerate() {
            got[usize::from(place)] += 1;
            for (place, (&got, &units)) in got.iter().zip(units).enumerate() {
                let owed = (i64::from(units) * (turn as i64 + 1) - got * length) as f64 / length as f64;
                worst = worst
                    .max((owed + carry.get(place).map_or(0.0, |carry| *carry as f64 / 2f64.powi(32))).abs());
            }
        }
        worst
    }

    #[test]
    fn small_orders() {
        let table: [(&[u32], &[u16]); 5] = [
            (&[1], &[0]),
            (&[3], &[0, 0, 0]),
            (&[2, 1], &[0, 1, 0]),
            (&[1, 1, 1], &[0, 1, 2]),
            (&[5, 1, 1], &[0, 0, 1, 0, 0, 2, 0]),
        ];
        for (units, expected) in table {
            assert_eq!(order(units, &vec![0; units.len()]), expected, "{units:?}");
        }
    }

    #[test]
    fn units_are_reduced_and_bounded() {
        let table: [(&[u32], &[u32]); 4] = [
            (&[4, 2], &[2, 1]),
            (&[1000, 250], &[4, 1]),
            (&[7, 5, 3], &[7, 5, 3]),
            (&[3000, 3000, 3000], &[1, 1, 1]),
        ];
        for (weights, expected) in table {
            assert_eq!(units(weights), expected, "{weights:?}");
        }
        for (members, length) in [(10, 16_384), (1_000, 16_384), (10_000, 20_000)] {
            let weights: Vec<u32> = (0..members).map(|place| place * 7919 % 999_983 + 1).collect();
            let units = units(&weights);
            let sum: u32 = units.iter().sum();
            assert!(sum <= length, "{members}: {sum}");
            assert!(units.iter().all(|&units| units > 0));
            let whole: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            for (&weight, &units) in weights.iter().zip(&units) {
                let off = (f64::from(units) / f64::from(sum) - f64::from(weight) / whole).abs();
                assert!(members > 8_192 || off < 1.0 / 8_192.0, "{members}: {weight} has {units} of {sum}");
            }
        }
    }

    #[test]
    fn many_members_stay_within_one_turn() {
        // Where the usual smooth weighted round robin is off by several turns.
        for weights in [
            vec![1; 200].into_iter().chain([200]).collect::<Vec<u32>>(),
            (1..=120).collect(),
            [vec![3; 50], vec![97; 3]].concat(),
        ] {
            let units = units(&weights);
            let bound = 1.0 - 1.0 / (2.0 * units.len() as f64 - 2.0);
            let worst = worst(&units, &vec![0; units.len()]);
            assert!(worst <= bound + 1e-9, "{worst} > {bound}");
        }
    }

    proptest! {
        #[test]
        fn every_member_has_its_share_at_every_moment(weights in prop::collection::vec(1u32..=1000, 1..12)) {
            let units = units(&weights);
            let order = order(&units, &vec![0; units.len()]);
            for (place, &units) in units.iter().enumerate() {
                let turns = order.iter().filter(|&&other| usize::from(other) == place).count();
                prop_assert_eq!(turns, units as usize);
            }
            prop_assert!(worst(&units, &vec![0; units.len()]) < 1.0);
        }

        #[test]
        fn a_carry_changes_the_order_but_no_share(
            weights in prop::collection::vec(1u32..=100, 2..8),
            owed in prop::collection::vec(-999i64..=999, 8),
        ) {
            let units = units(&weights);
            let carry: Vec<i64> = owed[..units.len()].iter().map(|owed| (owed << 32) / 1000).collect();
            let order = order(&units, &carry);
            for (place, &units) in units.iter().enumerate() {
                let turns = order.iter().filter(|&&other| usize::from(other) == place).count();
                prop_assert_eq!(turns, units as usize);
            }
        }
    }

    #[test]
    fn whoever_is_behind_comes_first() {
        let owed = |place: usize| {
            (0..3).map(|other| if other == place { 1 << 31 } else { -(1 << 30) }).collect::<Vec<i64>>()
        };
        for place in 0..3 {
            assert_eq!(order(&[10, 10, 11], &owed(place))[0], place as u16);
        }
    }
}
