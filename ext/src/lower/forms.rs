//! Groups by types of which equal values may look different: intervals and `jsonb`. The engine groups by what equal ones have
//! in common. Where Postgres shows the first one of a group, the engine gives the form that all of them have, and leaves the
//! query to Postgres if they have several.

use super::aggregation::Group;
use super::node::{self, Node};
use super::sub::{Column, Sub};
use super::tree::in_base;
use super::{Lowered, refused};
use pg_lake_plan::ir::{Aggregate, AggregateFunction, Plan};
use pgrx::pg_sys;

impl Group {
    /// The column that the engine groups by.
    pub fn column(&self, input: &Sub) -> Column {
        let node = match &self.form {
            None => in_base(self.node, &input.columns),
            // No output is made from it, but an order may be.
            // SAFETY: makes a node.
            Some(_) => unsafe {
                let typid = pg_sys::Oid::from(self.expr.ty.oid);
                pg_sys::makeNullConst(typid, -1, pg_sys::InvalidOid).cast()
            },
        };
        Column {
            ty: self.expr.ty.clone(),
            node,
        }
    }
}

/// Where what is shown of groups is.
pub struct Forms {
    /// Of each group, from 0; `None` if it isn't there.
    places: Vec<Option<usize>>,
    pub aggregates: Vec<Aggregate>,
    /// Those of the aggregates.
    pub columns: Vec<Column>,
}

impl Forms {
    /// Of the groups of which something is shown. `first`: the place of the first aggregate's column.
    pub fn of(
        groups: &[Group],
        is_shown: impl Fn(usize) -> bool,
        input: &Sub,
        first: usize,
    ) -> Forms {
        let mut forms = Forms {
            places: vec![],
            aggregates: vec![],
            columns: vec![],
        };
        for (at, group) in groups.iter().enumerate() {
            let place = match &group.form {
                None => Some(at),
                Some(_) if !is_shown(at) => None,
                Some(form) => {
                    forms.columns.push(Column {
                        ty: form.ty.clone(),
                        node: in_base(group.node, &input.columns),
                    });
                    forms.aggregates.push(Aggregate {
                        function: AggregateFunction::OneForm,
                        arg: Some(form.clone()),
                        filter: None,
                        distinct: false,
                        ty: form.ty.clone(),
                        order: vec![],
                    });
                    Some(first + forms.aggregates.len() - 1)
                }
            };
            forms.places.push(place);
        }
        forms
    }

    pub fn count(&self) -> usize {
        self.aggregates.len()
    }

    /// What is shown of a group.
    pub fn var(&self, groups: &[Group], at: usize) -> Lowered<Node> {
        let place = self.places.get(at).copied().flatten();
        match (place, groups.get(at)) {
            (Some(place), Some(group)) => {
                Ok(node::output_var(pg_sys::INDEX_VAR, place + 1, group.node))
            }
            _ => refused("a column that its parent doesn't use"),
        }
    }
}

/// Whether a plan has groups, or aggregates of intervals, that are left to Postgres where a group has several forms. That shows
/// late: other rows must not be out by then.
pub fn depends_on_forms(plan: &Plan) -> bool {
    let of_forms = |function: AggregateFunction| {
        function == AggregateFunction::OneForm || function.is_of_intervals()
    };
    let own = match plan {
        Plan::Aggregate { aggregates, .. } => {
            (aggregates.iter()).any(|aggregate| of_forms(aggregate.function))
        }
        _ => false,
    };
    own || plan.inputs().into_iter().any(depends_on_forms)
}
