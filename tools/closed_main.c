/* SPDX-License-Identifier: MIT
 *
 * The main of every closed_ROOM: the room is linked whole against only the
 * rooms it may know, so a call that goes up is an undefined reference.
 */
int main(void);

int
main(void)
{
    return 0;
}
