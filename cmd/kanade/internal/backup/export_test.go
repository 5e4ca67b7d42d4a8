package backup

// ForgetUnknown is for tests: in a backup of a test's size nothing happens between two streams.
var ForgetUnknown = forgetUnknown
