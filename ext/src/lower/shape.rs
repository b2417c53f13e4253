//! Recognises the subtrees that [`super::fragment`] lowers, before any expression is looked at.

use super::Lowered;
use super::node::{Node, get, resolve, target_exprs};
use pgrx::pg_sys;

/// The nodes of one aggregation over one scan.
pub struct Shape<'a> {
    pub limit: Option<&'a pg_sys::Limit>,
    pub sort: Option<&'a pg_sys::Sort>,
    pub agg: &'a pg_sys::Agg,
    /// Directly below the Agg.
    pub input_sort: Option<&'a pg_sys::Sort>,
    pub scan: &'a pg_sys::SeqScan,
    /// All of them, from the top.
    pub nodes: Vec<*mut pg_sys::Plan>,
    /// The outputs of the Agg's child over the base relation.
    pub base: Vec<Node>,
    /// Whether nobody relies on the order of the groups.
    pub order_unused: bool,
}

/// `OFFSET` and `LIMIT`.
#[derive(Clone, Copy)]
pub struct Cut {
    pub skip: u64,
    pub fetch: Option<u64>,
}

impl Cut {
    /// Rows that have to be computed.
    pub fn rows(self) -> Option<u64> {
        self.fetch?.checked_add(self.skip)
    }
}

impl<'a> Shape<'a> {
    /// The shape below `top`, or `None` if it isn't one at all.
    pub fn find(top: *mut pg_sys::Plan) -> Option<Lowered<Shape<'a>>> {
        let mut nodes = vec![];
        let mut next = top;
        let mut descend = |plan: *mut pg_sys::Plan| {
            nodes.push(plan);
            // SAFETY: a plan node of the tree.
            unsafe { (*plan).lefttree }
        };
        let limit = get::<pg_sys::Limit>(next.cast());
        if limit.is_some() {
            next = descend(next);
        }
        let sort = get::<pg_sys::Sort>(next.cast());
        if sort.is_some() {
            next = descend(next);
        }
        let agg = get::<pg_sys::Agg>(next.cast())?;
        next = descend(next);
        let input_sort = get::<pg_sys::Sort>(next.cast());
        let mut between = vec![];
        while get::<pg_sys::SeqScan>(next.cast()).is_none() {
            let is_sort = get::<pg_sys::Sort>(next.cast()).is_some();
            let is_projection = get::<pg_sys::Result>(next.cast())
                .is_some_and(|result| result.resconstantqual.is_null());
            // SAFETY: a plan node of the tree, which a Sort or Result is.
            if !(is_sort || is_projection) || unsafe { !(*next).qual.is_null() } {
                return None;
            }
            between.push(next);
            next = descend(next);
        }
        let scan = get::<pg_sys::SeqScan>(next.cast())?;
        descend(next);

        let mut base = target_exprs(scan.scan.plan.targetlist);
        for plan in between.into_iter().rev() {
            // SAFETY: as above.
            let targets = target_exprs(unsafe { (*plan).targetlist });
            base = targets
                .iter()
                .map(|target| resolve(*target, &base))
                .collect();
        }
        let shape = Shape {
            limit,
            sort,
            agg,
            input_sort,
            scan,
            nodes,
            base,
            order_unused: sort.is_some(),
        };
        Some(shape.check().map(|()| shape))
    }

    fn check(&self) -> Lowered<()> {
        use pg_sys::AggStrategy::{AGG_HASHED, AGG_PLAIN, AGG_SORTED};
        let agg = self.agg;
        if !matches!(agg.aggstrategy, AGG_PLAIN | AGG_SORTED | AGG_HASHED)
            || !agg.groupingSets.is_null()
            || !agg.chain.is_null()
        {
            return Err("grouping sets are not lowered".to_owned());
        }
        if agg.aggsplit != pg_sys::AggSplit::AGGSPLIT_SIMPLE {
            return Err("partial aggregation is not lowered".to_owned());
        }
        if agg.aggstrategy == AGG_SORTED && self.input_sort.is_none() && agg.numCols > 0 {
            return Err(
                "aggregation of ordered input is lowered directly above a sort only".to_owned(),
            );
        }
        self.cut().map(|_| ())
    }

    /// The number of rows that the Limit skips and returns.
    pub fn cut(&self) -> Lowered<Option<Cut>> {
        let Some(limit) = self.limit else {
            return Ok(None);
        };
        if limit.limitOption != pg_sys::LimitOption::LIMIT_OPTION_COUNT {
            return Err("FETCH … WITH TIES is not lowered".to_owned());
        }
        Ok(Some(Cut {
            skip: row_count(limit.limitOffset)?.unwrap_or(0),
            fetch: row_count(limit.limitCount)?,
        }))
    }

    /// The Agg's input column `number` (from 1) over the base relation.
    pub fn input(&self, number: i16) -> Lowered<Node> {
        usize::try_from(number)
            .ok()
            .and_then(|number| self.base.get(number.checked_sub(1)?))
            .copied()
            .ok_or_else(|| "a column that the scan doesn't return".to_owned())
    }
}

/// A constant number of rows; `None` for null, which is no limit.
fn row_count(node: Node) -> Lowered<Option<u64>> {
    if node.is_null() {
        return Ok(None);
    }
    let constant = get::<pg_sys::Const>(node)
        .filter(|constant| constant.consttype == pg_sys::INT8OID)
        .ok_or("LIMIT and OFFSET are lowered for constants only")?;
    if constant.constisnull {
        return Ok(None);
    }
    match u64::try_from(constant.constvalue.value() as i64) {
        Ok(rows) => Ok(Some(rows)),
        Err(_) => Err("a negative LIMIT or OFFSET is left to Postgres".to_owned()),
    }
}
