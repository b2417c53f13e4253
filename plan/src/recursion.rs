//! `WITH RECURSIVE` as nodes of a plan.

use crate::ir::Plan;
use crate::types::{LakeType, SqlType};
use serde::{Deserialize, Serialize};

/// The rows of one term, then those of the other one: it is run over the rows that came out last, until it gives none,
/// and once over no rows if the first term gives none. Rows come out in this order, and a step is begun once the rows of the
/// one before have been taken: there may be no end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecursiveUnion {
    /// Where it begins. Not within its own steps.
    pub non_recursive: Box<Plan>,
    /// Over the [`WorkTable`] of this `id`. Its columns have the same types. There is no other recursion in it.
    pub recursive: Box<Plan>,
    /// A row that equals an earlier one, of any step, doesn't come out.
    pub distinct: bool,
    pub id: u32,
}

/// The rows that came out in the last step of the recursion in whose recursive term it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkTable {
    pub id: u32,
    pub columns: Vec<WorkColumn>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkColumn {
    /// For EXPLAIN.
    pub name: String,
    pub ty: SqlType,
}

impl WorkTable {
    /// Types of the columns.
    pub fn output(&self) -> Vec<LakeType> {
        let columns = self.columns.iter();
        columns.map(|column| column.ty.lake.clone()).collect()
    }
}

impl Plan {
    /// Whether there is a recursion in it.
    pub fn has_recursion(&self) -> bool {
        matches!(self, Plan::RecursiveUnion(_))
            || self.inputs().into_iter().any(Plan::has_recursion)
    }

    /// Whether its rows come from a recursion, one after the other, as that finds them.
    pub fn follows_recursion(&self) -> bool {
        match self {
            Plan::RecursiveUnion(_) => true,
            Plan::Filter { input, .. }
            | Plan::Project { input, .. }
            | Plan::Limit { input, .. } => input.follows_recursion(),
            Plan::ProjectSet(set) => set.input.follows_recursion(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recursion() -> Plan {
        let table = WorkTable {
            id: 1,
            columns: vec![],
        };
        Plan::RecursiveUnion(RecursiveUnion {
            non_recursive: Box::new(Plan::OneRow),
            recursive: Box::new(Plan::WorkTable(table)),
            distinct: false,
            id: 1,
        })
    }

    #[test]
    fn recursions_are_found_wherever_they_are() {
        let limit = |plan: Plan| Plan::Limit {
            input: Box::new(plan),
            skip: 0,
            fetch: Some(1),
        };
        let both = |plan: Plan| Plan::Append {
            inputs: vec![Plan::OneRow, plan],
        };
        assert!(limit(recursion()).follows_recursion());
        assert!(!limit(Plan::OneRow).follows_recursion());
        assert!(!both(recursion()).follows_recursion());
        assert!(limit(both(recursion())).has_recursion());
        assert!(!both(Plan::OneRow).has_recursion());
    }
}
