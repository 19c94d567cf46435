//! What is needed before the first run: roles and privileges, and a configuration to begin with. Text, for people to read, and
//! the commands that are run on the way.

pub(crate) mod first_file;
pub(crate) mod grants;
pub(crate) mod step;
pub(crate) mod trial;
