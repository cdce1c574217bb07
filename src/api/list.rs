//! Lists: filter, order, page. Pure.
//!
//! Guarantees that following `next` to the end shows every row that did not move exactly once: a cursor holds the sort keys of the last row, not a count, so rows that come and go
//! elsewhere neither repeat nor hide others. A cursor is bound to its list, filters and order; any other text, and a cursor used elsewhere, is refused.
//!
//! A page of ten thousand rows is asked for many times a second: rows are compared where they are, only as many are put in order as are shown, and no more are looked at than are shown where no order is asked for.

use std::borrow::Cow;
use std::cmp::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::Params;

/// The longest cursor that is looked at: two names and a few numbers are far below.
const MAX_CURSOR: usize = 2048;

/// Whose rows a list holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Scope {
    /// The rows as this instance sees them.
    Instance,
}

/// What rows are ordered by. Unknown is last in either direction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Key<'t> {
    /// A number.
    Number(i64),
    /// A text.
    Text(Cow<'t, str>),
    /// Not known.
    Unknown,
}

impl<'t> Key<'t> {
    pub(super) fn text(text: &'t str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// The same, of the same text.
    fn lent(&self) -> Key<'_> {
        match self {
            Self::Number(number) => Key::Number(*number),
            Self::Text(text) => Key::text(text),
            Self::Unknown => Key::Unknown,
        }
    }

    pub(super) fn count(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }

    pub(super) fn maybe(number: Option<i64>) -> Self {
        number.map_or(Self::Unknown, Self::Number)
    }

    /// A fraction, in thousandths: whole numbers survive the way through a cursor unchanged.
    pub(super) fn fraction(number: Option<f64>) -> Self {
        // The cast saturates, which is what an order wants.
        number.filter(|known| known.is_finite()).map_or(Self::Unknown, |known| Self::Number((known * 1000.0).round() as i64))
    }
}

/// A field to sort by, named as on the wire.
pub(super) trait SortField: Copy + PartialEq + 'static {
    /// Every field.
    const ALL: &'static [Self];

    /// The field's name.
    fn name(self) -> &'static str;
}

/// The order that `sort` asks for: fields, and whether each is descending. The row's identity always comes last.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order<F>(Vec<(F, bool)>);

impl<F> Default for Order<F> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<F: SortField> Order<F> {
    /// Reads `-lag,name`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut fields: Vec<(F, bool)> = Vec::new();
        for part in text.split(',') {
            let (name, is_descending) = part.strip_prefix('-').map_or((part, false), |name| (name, true));
            let field = super::extract::one_of(F::ALL, F::name, name)?;
            if fields.iter().any(|(known, _)| *known == field) {
                return Err(format!("'{}' is there twice", field.name()));
            }
            fields.push((field, is_descending));
        }
        Ok(Self(fields))
    }

    /// Compares the keys of two rows, one after the other.
    fn compare<'l, 'r>(&self, left: impl Iterator<Item = Key<'l>>, right: impl Iterator<Item = Key<'r>>) -> Ordering {
        for (index, (a, b)) in left.zip(right).enumerate() {
            let is_descending = self.0.get(index).is_some_and(|(_, is_descending)| *is_descending);
            let ordering = match (&a, &b) {
                (Key::Unknown, _) | (_, Key::Unknown) => a.cmp(&b),
                _ if is_descending => b.cmp(&a),
                _ => a.cmp(&b),
            };
            if ordering != Ordering::Equal {
                return ordering;
            }
        }
        Ordering::Equal
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor<'t> {
    f: String,
    k: Vec<Key<'t>>,
}

/// A place in a list.
pub(super) fn cursor(fingerprint: &str, keys: Vec<Key<'_>>) -> String {
    let cursor = Cursor { f: fingerprint.to_owned(), k: keys };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default())
}

/// Takes `cursor`; it must come from a list with the same filters and order, and hold `keys` keys.
pub(super) fn take_cursor(params: &mut Params, keys: usize) -> Option<Vec<Key<'static>>> {
    let fingerprint = params.fingerprint().to_owned();
    params.take("cursor", |text| {
        let refusal = "it is not a cursor of this list; start again without one, and keep filters and order while paging";
        let decoded = (text.len() <= MAX_CURSOR).then(|| URL_SAFE_NO_PAD.decode(text).ok()).flatten().ok_or(refusal)?;
        let cursor: Cursor<'static> = serde_json::from_slice(&decoded).map_err(|_| refusal)?;
        if cursor.f == fingerprint && cursor.k.len() == keys { Ok(cursor.k) } else { Err(refusal) }
    })
}

/// One list's page as the query asks for it.
pub(super) struct Paging<F> {
    pub(super) order: Order<F>,
    pub(super) limit: usize,
    after: Option<Vec<Key<'static>>>,
    fingerprint: String,
}

impl<F: SortField> Paging<F> {
    /// Takes `sort`, `limit` and `cursor`; a row's identity has `identity` keys.
    pub(super) fn take(params: &mut Params, identity: usize) -> Self {
        let order = params.take("sort", Order::parse).unwrap_or_default();
        let limit = params.limit();
        let after = take_cursor(params, order.0.len() + identity);
        Self { order, limit, after, fingerprint: params.fingerprint().to_owned() }
    }

    /// The page of `rows`, which come in the order of their identities, and the cursor of the next one.
    pub(super) fn page<'a, T, const N: usize>(
        &self,
        rows: impl Iterator<Item = &'a T>,
        field_key: impl Fn(&'a T, F) -> Key<'a>,
        identity: impl Fn(&'a T) -> [Key<'a>; N],
    ) -> (Vec<&'a T>, Option<String>) {
        let (order, field_key) = (&self.order, &field_key);
        let keys_of = |row: &'a T| order.0.iter().map(move |(field, _)| field_key(row, *field)).chain(identity(row));
        let compare = |left: &&'a T, right: &&'a T| self.order.compare(keys_of(left), keys_of(right));
        let is_after = |row: &'a T| {
            let after = self.after.as_ref();
            after.is_none_or(|after| self.order.compare(keys_of(row), after.iter().map(Key::lent)) == Ordering::Greater)
        };
        let rows = rows.filter(|row| is_after(row));
        // The order that nobody has to ask for is the one that the rows have: no more of them are looked at than are shown.
        let is_as_it_comes = order.0.is_empty();
        let mut page: Vec<&'a T> = if is_as_it_comes { rows.take(self.limit + 1).collect() } else { rows.collect() };
        let has_more = page.len() > self.limit;
        if !is_as_it_comes {
            if has_more {
                page.select_nth_unstable_by(self.limit, compare);
                page.truncate(self.limit);
            }
            page.sort_unstable_by(compare);
        }
        debug_assert!(page.is_sorted_by(|left, right| compare(left, right).is_le()), "rows come in the order of their identities");
        page.truncate(self.limit);
        let next = if has_more { page.last().map(|row| cursor(&self.fingerprint, keys_of(row).collect())) } else { None };
        (page, next)
    }
}

/// A page as it goes out; each list describes its own.
#[derive(Serialize)]
pub(super) struct Rows<'a, T> {
    items: &'a [&'a T],
    next: Option<&'a str>,
    scope: Scope,
}

impl<'a, T: Serialize> Rows<'a, T> {
    /// The page of this instance.
    pub(super) fn of(items: &'a [&'a T], next: Option<&'a str>) -> Self {
        Self { items, next, scope: Scope::Instance }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Field {
        Lag,
        Name,
    }

    impl SortField for Field {
        const ALL: &'static [Self] = &[Self::Lag, Self::Name];

        fn name(self) -> &'static str {
            match self {
                Self::Lag => "lag",
                Self::Name => "name",
            }
        }
    }

    type Row = (String, Option<i64>);

    fn page(rows: &[Row], query: &str) -> (Vec<String>, Option<String>) {
        let uri: Uri = format!("/rows?{query}").parse().expect("a path");
        let mut params = Params::of(&uri, "rows").expect("pairs");
        let paging = Paging::<Field>::take(&mut params, 1);
        params.finish().expect("legal");
        fn key(row: &Row, field: Field) -> Key<'_> {
            match field {
                Field::Lag => Key::maybe(row.1),
                Field::Name => Key::text(&row.0),
            }
        }
        let (page, next) = paging.page(rows.iter(), key, |row| [Key::text(&row.0)]);
        (page.into_iter().map(|row| row.0.clone()).collect(), next)
    }

    fn refused(query: &str) -> bool {
        let uri: Uri = format!("/rows?{query}").parse().expect("a path");
        let mut params = Params::of(&uri, "rows").expect("pairs");
        let _ = Paging::<Field>::take(&mut params, 1);
        params.finish().is_err()
    }

    #[test]
    fn unknown_is_last_in_both_directions() {
        let rows = [("a".to_owned(), None), ("b".to_owned(), Some(1)), ("c".to_owned(), Some(2))];
        assert_eq!(page(&rows, "sort=lag").0, ["b", "c", "a"]);
        assert_eq!(page(&rows, "sort=-lag").0, ["c", "b", "a"]);
    }

    #[test]
    fn a_cursor_of_another_list_is_refused() {
        let rows = [("a".to_owned(), Some(1)), ("b".to_owned(), Some(2))];
        let next = page(&rows, "sort=lag&limit=1").1.expect("more");
        assert_eq!(page(&rows, &format!("sort=lag&limit=5&cursor={next}")).0, ["b"]);
        assert!(refused(&format!("sort=-lag&cursor={next}")));
        assert!(refused(&format!("cursor={next}")));
        assert!(refused("cursor="));
        assert!(refused("cursor=AAAA"));
        assert!(refused(&format!("cursor={}", "A".repeat(5000))));
        assert!(refused("sort="));
        assert!(refused("sort=lag,-lag"));
        assert!(refused("sort=size"));
    }

    proptest! {
        #[test]
        fn following_the_cursors_shows_every_row_once(
            lags in proptest::collection::btree_map("[a-z]{1,3}", proptest::option::of(0..4i64), 0..30),
            limit in 1..7usize,
            sort in prop_oneof![Just(""), Just("sort=lag&"), Just("sort=-lag&"), Just("sort=-lag,-name&"), Just("sort=name&")],
        ) {
            let rows: Vec<Row> = lags.into_iter().collect();
            let (whole, _) = page(&rows, &format!("{sort}limit=1000"));
            let mut seen = Vec::new();
            let mut cursor: Option<String> = None;
            loop {
                let at = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
                let (names, next) = page(&rows, &format!("{sort}limit={limit}{at}"));
                seen.extend(names);
                cursor = next;
                if cursor.is_none() {
                    break;
                }
            }
            prop_assert_eq!(seen, whole);
        }

        #[test]
        fn no_cursor_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = refused(&format!("cursor={}", URL_SAFE_NO_PAD.encode(&bytes)));
        }
    }
}
