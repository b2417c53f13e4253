//! The cache's contract, through its public interface.

mod cost;
mod crash;
mod damage;
mod flights;
mod limit;
mod places;
mod reading;
mod support;
