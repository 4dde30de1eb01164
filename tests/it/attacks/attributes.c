/* Gives files what a mode does not show: attributes PATH...: a list that gives user 65534 what is made in a directory
 * later, and an attribute. With `-l` first it only says, by its code, whether any has them.
 */
#include <stdint.h>
#include <string.h>
#include <sys/xattr.h>

int main(int count, char **words)
{
	struct { uint32_t version; struct { uint16_t tag, permissions; uint32_t id; } entries[5]; } list = {
		2, {{1, 7, -1}, {2, 7, 65534}, {4, 5, -1}, {0x10, 7, -1}, {0x20, 5, -1}}
	};
	int lists = count > 1 && !strcmp(words[1], "-l"), at;

	for (at = 1 + lists; at < count; at++) {
		if (lists) {
			if (getxattr(words[at], "user.planted", 0, 0) >= 0 ||
			    getxattr(words[at], "system.posix_acl_default", 0, 0) >= 0)
				return 0;
			continue;
		}
		setxattr(words[at], "system.posix_acl_default", &list, sizeof list, 0);
		if (setxattr(words[at], "user.planted", "y", 1, 0))
			return 2;
	}
	return lists;
}
