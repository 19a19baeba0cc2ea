//! Tests that are the same for both drivers.

/// Test functions for both drivers, in the modules `mio` and `smol`, out of functions that take the driver's
/// name.
macro_rules! on_each_driver {
    ($($test:ident),+ $(,)?) => {
        mod mio {
            $(#[test] fn $test() { super::$test("mio"); })+
        }
        mod smol {
            $(#[test] fn $test() { super::$test("smol"); })+
        }
    };
}
