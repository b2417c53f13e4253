//! The 22 queries of TPC-H, as DuckDB's tpch extension has them.

use crate::Result;
use crate::cluster::Cluster;
use crate::compare::Order;
use crate::python::Python;

pub struct Query {
    /// From 1.
    pub number: usize,
    /// On the tables of the search path.
    pub sql: String,
    pub order: Order,
}

/// What each ORDER BY promises: `Total` where its columns have no two equal rows or only one row comes out. The
/// others sort by sums or amounts of money.
const ORDERS: [Order; 22] = [
    Order::Total,         // the groups' key
    Order::Total,         // with p_partkey and s_name: a key of partsupp
    Order::Keys(&[1, 2]), // revenue, o_orderdate
    Order::Total,         // the groups' key
    Order::Keys(&[1]),    // revenue
    Order::Total,         // one row
    Order::Total,         // the groups' key
    Order::Total,         // the groups' key
    Order::Total,         // the groups' key
    Order::Keys(&[2]),    // revenue
    Order::Keys(&[1]),    // value
    Order::Total,         // the groups' key
    Order::Total,         // with c_count, the groups' key
    Order::Total,         // one row
    Order::Total,         // s_suppkey
    Order::Total,         // with the groups' key
    Order::Total,         // one row
    Order::Keys(&[4, 3]), // o_totalprice, o_orderdate
    Order::Total,         // one row
    Order::Total,         // s_name
    Order::Total,         // with s_name, the groups' key
    Order::Total,         // the groups' key
];

impl Query {
    pub fn order_in_words(&self) -> &'static str {
        match self.order {
            Order::Total => "the order is total",
            Order::Keys(_) => "rows of equal sort keys in any order",
            Order::None => "in any order",
        }
    }
}

/// The queries, in their order.
pub fn all(python: &Python, cluster: &Cluster) -> Result<Vec<Query>> {
    let text = python.script("tpch_queries.py", cluster).ok()?;
    let queries: Vec<Query> = ORDERS
        .into_iter()
        .zip(text.lines())
        .zip(1..)
        .filter_map(|((order, line), number)| {
            let (named, sql) = line.split_once('\t')?;
            (named == number.to_string()).then(|| Query {
                number,
                sql: sql.to_owned(),
                order,
            })
        })
        .collect();
    if queries.len() != ORDERS.len() {
        return Err(format!("tpch_queries.py printed {} queries", queries.len()));
    }
    Ok(queries)
}
