/* hiredis, the client of C programs and of many others' parsers: says what it sees, line by line.
 * Debian's is of before RESP3, which redis-py shows with hiredis' newer parser.
 * hiredis PORT allowed|refused */
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *what) {
	fprintf(stderr, "%s\n", what);
	exit(1);
}

static void say(const redisReply *reply, int depth) {
	printf("%*s%d", depth * 2, "", reply->type);
	switch (reply->type) {
	case REDIS_REPLY_INTEGER:
		printf(" %lld\n", reply->integer);
		break;
	case REDIS_REPLY_STRING:
	case REDIS_REPLY_STATUS:
	case REDIS_REPLY_ERROR:
		printf(" %zu %.60s\n", reply->len, reply->str);
		break;
	case REDIS_REPLY_ARRAY:
		printf(" %zu\n", reply->elements);
		for (size_t i = 0; i < reply->elements; i++)
			say(reply->element[i], depth + 1);
		break;
	default:
		printf("\n");
	}
}

static void next(redisContext *context) {
	void *reply;
	if (redisGetReply(context, &reply) != REDIS_OK)
		die(context->errstr);
	if (reply != NULL) {
		say(reply, 0);
		freeReplyObject(reply);
	}
}

static redisContext *connected(int port) {
	struct timeval within = {30, 0};
	redisContext *context = redisConnectWithTimeout("127.0.0.1", port, within);
	if (context == NULL || context->err)
		die(context ? context->errstr : "no memory");
	redisSetTimeout(context, within);
	return context;
}

/* A pipeline with one command of many that `wanted` names, and the same in a transaction. */
static void many(redisContext *context, const char *wanted) {
	for (int i = 0; i < 200; i++)
		redisAppendCommand(context, i == 100 ? wanted : "INCR c:%d", i % 7);
	for (int i = 0; i < 200; i++)
		next(context);
	redisAppendCommand(context, "MULTI");
	redisAppendCommand(context, "SET t 1");
	redisAppendCommand(context, wanted, 1);
	redisAppendCommand(context, "EXEC");
	redisAppendCommand(context, "GET t");
	for (int i = 0; i < 5; i++)
		next(context);
}

static void kinds(redisContext *context) {
	size_t length = 1 << 20;
	char *large = malloc(length);
	for (size_t i = 0; i < length; i++)
		large[i] = (char)(i * 31);
	redisAppendCommand(context, "SET large %b", large, length);
	redisAppendCommand(context, "GET large");
	redisAppendCommand(context, "HSET h a 1 b 2");
	redisAppendCommand(context, "HGETALL h");
	redisAppendCommand(context, "SADD s a");
	redisAppendCommand(context, "SMEMBERS s");
	redisAppendCommand(context, "ZADD z 1.5 a");
	redisAppendCommand(context, "ZSCORE z a");
	redisAppendCommand(context, "GET none");
	redisAppendCommand(context, "LPUSH h x");
	redisAppendCommand(context, "EVAL %s 1 k", "return {1, 'a', {false, 2}}");
	for (int i = 0; i < 11; i++)
		next(context);
	free(large);
}

/* What another connection publishes once this one has subscribed. */
static void messages(redisContext *context, int port) {
	redisContext *other = connected(port);
	redisAppendCommand(context, "SUBSCRIBE news");
	next(context);
	redisReply *told = redisCommand(other, "PUBLISH news hello");
	if (told == NULL)
		die(other->errstr);
	say(told, 0);
	freeReplyObject(told);
	redisFree(other);
	next(context);
	redisAppendCommand(context, "UNSUBSCRIBE news");
	redisAppendCommand(context, "PING");
	next(context);
	next(context);
}

int main(int count, char **argv) {
	if (count != 3)
		die("hiredis PORT allowed|refused");
	int port = atoi(argv[1]);
	redisContext *context = connected(port);
	if (strcmp(argv[2], "allowed") == 0) {
		many(context, "INCR c:%d");
		kinds(context);
		messages(context, port);
	} else {
		many(context, "SET forbidden:%d 1");
	}
	redisFree(context);
	return 0;
}
