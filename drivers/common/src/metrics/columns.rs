//! Counts that few slots have: a column for each kind, as long as the last slot that has counted it.

/// Counts of each kind for each slot.
#[derive(Clone, Debug)]
pub struct Columns<K> {
    columns: Vec<(K, Vec<u64>)>,
}

impl<K> Default for Columns<K> {
    fn default() -> Self {
        Self { columns: Vec::new() }
    }
}

impl<K: Copy + PartialEq> Columns<K> {
    /// Counts `n` of this kind. For a kind or a slot that is new it takes memory.
    pub fn add(&mut self, kind: K, slot: usize, n: u64) {
        let place = self.place(kind);
        self.add_at(place, slot, n);
    }

    /// Where the column of this kind is: it stays there.
    pub fn place(&mut self, kind: K) -> usize {
        self.columns.iter().position(|(known, _)| *known == kind).unwrap_or_else(|| {
            self.columns.push((kind, Vec::new()));
            self.columns.len() - 1
        })
    }

    /// Counts `n` in the column at [`Columns::place`].
    #[inline]
    pub fn add_at(&mut self, place: usize, slot: usize, n: u64) {
        let column = &mut self.columns[place].1;
        match column.get_mut(slot) {
            Some(count) => *count += n,
            None => Self::lengthen(column, slot, n),
        }
    }

    #[cold]
    fn lengthen(column: &mut Vec<u64>, slot: usize, n: u64) {
        column.resize(slot + 1, 0);
        column[slot] = n;
    }

    /// What a slot has counted, but for zeros.
    pub fn of(&self, slot: usize) -> impl Iterator<Item = (K, u64)> + '_ {
        let counts = self.columns.iter().map(move |(kind, column)| (*kind, column.get(slot).copied()));
        counts.filter_map(|(kind, count)| Some((kind, count.filter(|count| *count > 0)?)))
    }

    /// The slot has counted nothing.
    pub fn clear(&mut self, slot: usize) {
        for (_, column) in &mut self.columns {
            if let Some(count) = column.get_mut(slot) {
                *count = 0;
            }
        }
    }
}
