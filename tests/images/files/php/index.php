<?php
// Says who serves, counts by a file under a lock, and works a little.
$counter = fopen('/tmp/counter', 'c+');
flock($counter, LOCK_EX);
$count = 1 + (int) stream_get_contents($counter);
rewind($counter);
fwrite($counter, (string) $count);
flock($counter, LOCK_UN);
header('Content-Type: application/json');
echo json_encode([
    'sapi' => PHP_SAPI,
    'version' => PHP_VERSION,
    'pid' => getmypid(),
    'user' => posix_getpwuid(posix_geteuid())['name'],
    'opcache' => function_exists('opcache_get_status') && opcache_get_status(false) !== false,
    'count' => $count,
    'body' => strlen(file_get_contents('php://input')),
    'hash' => hash('sha256', str_repeat($_GET['q'] ?? '', 1000)),
]), "\n";
