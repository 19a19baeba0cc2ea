//! An order in which everyone gets his share, within one turn of the exact one at every moment.
//!
//! This is the chairman assignment problem, solved by Tijdeman's rule (Discrete Mathematics 32, 1980): who has been owed nearly a turn may
//! be next, and of those the one who would soonest be owed too much. With n members nobody is ever off by more than 1 - 1 / (2n - 2).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The longest order, unless there are more members than half of it.
const LONGEST: usize = 16_384;

/// How often each member is in an order that stands for `weights` (none of them 0). Exact if the reduced weights sum to 16384 or less;
/// else rounded, by which a share changes by less than 1 / 8192 of all (with more than 8192 members: at most doubles).
pub(super) fn units(weights: &[u32]) -> Vec<u32> {
    let reduced = reduce(weights.iter().map(|&weight| u64::from(weight)).collect());
    let sum: u64 = reduced.iter().sum();
    let longest = LONGEST.max(2 * weights.len()) as u64;
    let fitting = if sum <= longest {
        reduced
    } else {
        let room = longest - weights.len() as u64;
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

/// Members by their places, each as often as `units` says. `carry` is what each was owed before, in 1 / 2^32 of one turn: who was owed
/// something comes earlier, and the order may be repeated all the same.
pub(super) fn order(units: &[u32], carry: &[i64]) -> Vec<u16> {
    let length = units.iter().map(|&units| i64::from(units)).sum::<i64>();
    if units.len() < 2 {
        return vec![0; length as usize];
    }
    let members = 2 * units.len() as i64 - 2;
    // In 1 / (length * members) of one turn, which makes all of it whole numbers.
    let owed_at_start = |place: usize| ((i128::from(carry[place]) * i128::from(length)) >> 32) as i64;
    let turn_when = |place: usize, got: i64, owed: i64| {
        let (wanted, speed) = (owed + members * (length * got - owed_at_start(place)), members * i64::from(units[place]));
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
