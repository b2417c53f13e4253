//! Sets in FROM.

use super::expressions::{Generator, Leaf, Scope};
use super::tree::{Expr, Join, Relation, Source};
use super::types::Type;

/// Sets, and the type of their elements.
const SETS: &[(&str, Type)] = &[
    ("generate_series(-3, 12)", Type::Int4),
    ("generate_series(20::int8, 0::int8, -3::int8)", Type::Int8),
    ("generate_series(2, 1)", Type::Int4),
    ("unnest(ARRAY[3, NULL, 0, 5, 5])", Type::Int4),
    ("unnest('{7,NULL,1}'::int8[])", Type::Int8),
    ("unnest(NULL::int4[])", Type::Int4),
];

impl Generator<'_> {
    /// Functions that return sets, numbered.
    pub(super) fn sets(&mut self) -> (Relation, Scope) {
        let alias = self.alias();
        let sets: Vec<(&'static str, Type)> = (0..=self.random.below(2))
            .map(|_| *self.random.one_of(SETS))
            .collect();
        let types = sets.iter().map(|(_, ty)| *ty).chain([Type::Int8]);
        let leaves: Vec<Leaf> = types
            .zip(1..)
            .map(|(ty, number)| Leaf {
                expr: Expr::column(format!("{alias}.c{number}"), ty, true),
                tame: true,
            })
            .collect();
        let keys: Vec<Expr> = leaves
            .last()
            .map(|leaf| leaf.expr.clone())
            .into_iter()
            .collect();
        let relation = Relation {
            source: Source::Sets(sets.into_iter().map(|(call, _)| call).collect()),
            alias,
            join: Join::Inner,
            on: Vec::new(),
            keys: keys.clone(),
        };
        let scope = Scope {
            leaves,
            keys,
            plain: true,
        };
        (relation, scope)
    }
}
