// Package deploy holds the tests of what kanade is deployed with, without the engines that carry it out: the compose file
// is loaded as Docker would and checked against the programs, and the same programs are run outside of containers, with
// the environment of the compose file and the broker's configuration, until an exec has gone from end to end.
package deploy
