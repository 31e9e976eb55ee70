//! One `use` brings both the function and its entry; the entry is as visible as the function.
#![deny(warnings)]
#![deny(unreachable_pub)]

mod tasks {
    #[mproc::entry]
    pub(crate) fn square(x: i64) -> i64 {
        x * x
    }

    pub(crate) mod deep {
        #[mproc::entry]
        pub(super) fn near() {}

        #[mproc::entry]
        pub(in crate::tasks) fn within() {}

        #[mproc::entry]
        pub(crate) fn far() {}
    }

    #[mproc::entry]
    fn private(_: Secret) -> Secret {
        deep::near();
        deep::within();
        let _ = (deep::near::bind(), deep::within::bind());
        Secret
    }

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Secret;

    pub(crate) fn all() {
        let _ = private::bind(private(Secret));
    }
}

use tasks::deep::far;
use tasks::square as sq;

fn main() {
    assert_eq!(sq(3), 9);
    let _ = sq::bind(3);
    let _ = tasks::square::bind(3);
    far();
    let _ = far::bind();
    tasks::all();
    assert!(<sq as mproc::Entry>::NAME.ends_with("::tasks::square"));
}
