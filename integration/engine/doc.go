// Package engine runs a Tinybird project, with its data sources and pipes as they are deployed to Tinybird, on ClickHouse itself:
// the npm package chdb, which carries it in a process of Node. It plugs into devstack's API, so that tests of the built
// binary read real rows through real SQL without an account.
//
// Its reading of Tinybird's files and templates is its own and shared with nothing that it is used to test. What it does not
// understand is an error that names the place, never skipped. The texts of errors and the literals that parameters become are
// those of Tinybird's own command line tool.
package engine
