/* MariaDB's C library, which executes a prepared statement for many rows in one packet. */

#include <mariadb/mysql.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS 3

/* Executes sql for three rows at once, and says what came of it. */
static void execute(MYSQL *server, const char *sql)
{
    int ids[ROWS] = {1, 2, 3};
    char *texts[ROWS] = {"a", "\xff'b", "c"};
    unsigned long lengths[ROWS] = {1, 3, 1};
    unsigned int rows = ROWS;
    MYSQL_BIND binds[2];
    MYSQL_STMT *statement = mysql_stmt_init(server);

    memset(binds, 0, sizeof binds);
    binds[0].buffer_type = MYSQL_TYPE_LONG;
    binds[0].buffer = ids;
    binds[1].buffer_type = MYSQL_TYPE_BLOB;
    binds[1].buffer = texts;
    binds[1].length = lengths;
    if (mysql_stmt_prepare(statement, sql, strlen(sql))
        || mysql_stmt_attr_set(statement, STMT_ATTR_ARRAY_SIZE, &rows)
        || mysql_stmt_bind_param(statement, binds)
        || mysql_stmt_execute(statement))
        printf("%u %s\n", mysql_stmt_errno(statement), mysql_stmt_error(statement));
    else
        printf("%llu rows\n", (unsigned long long)mysql_stmt_affected_rows(statement));
    mysql_stmt_close(statement);
}

int main(int count, char **arguments)
{
    MYSQL *server = mysql_init(NULL);
    my_bool verifies = 0;

    if (count != 2)
        return 2;
    mysql_optionsv(server, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, &verifies);
    if (!mysql_real_connect(server, "127.0.0.1", "bob", NULL, "shop", atoi(arguments[1]), NULL, 0)) {
        fprintf(stderr, "%s\n", mysql_error(server));
        return 1;
    }
    execute(server, "INSERT INTO bytes VALUES (?, ?)");
    execute(server, "UPDATE forbidden SET id = ? WHERE id = ?");
    execute(server, "INSERT INTO bytes VALUES (?, ?)");
    mysql_close(server);
    return 0;
}
